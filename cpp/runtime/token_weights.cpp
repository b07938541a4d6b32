#include "runtime/token_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>

#include "runtime/exp_series.h"
#include "runtime/logit_scan.h"

namespace lamella {
namespace {

/// The smallest float that is at least `value`.
float at_least(double value) {
  if (value <= static_cast<double>(std::numeric_limits<float>::lowest())) return std::numeric_limits<float>::lowest();
  const auto nearest = static_cast<float>(value);
  return static_cast<double>(nearest) < value ? std::nextafter(nearest, std::numeric_limits<float>::infinity())
                                              : nearest;
}

/// Buckets of top_p, equally wide but for the last, which has no end.
constexpr std::size_t bucket_count = 1024;

/// Blocks that top_p takes at a time: 10 KiB of weights and places.
constexpr std::size_t logit_chunk = 16;

/// The buckets of logits from `best` to `lowest`, or to where the weight has fallen to e^-32 and little is left to be
/// told apart. A place never falls as logits do, whatever is rounded.
LogitPlaces bucket_places(float best, float lowest, double temperature) {
  const double range = std::min(static_cast<double>(best) - static_cast<double>(lowest), 32.0 * temperature);
  constexpr double most = 1e30;  // a range of one denormal number must not take it beyond a float
  return {.best = best,
          .per_logit = static_cast<float>(std::min(static_cast<double>(bucket_count) / range, most)),
          .last = bucket_count - 1};
}

}  // namespace

double exp_of_negative(double x) noexcept {
  using namespace fp64_exp;
  const double shifted = x * log2_e + to_integer;
  const double power = shifted - to_integer;
  const double r = (x - power * ln2_high) - power * ln2_low;
  const auto pair = [&](std::size_t i) { return series[i] + series[i + 1] * r; };
  const double r2 = r * r, r4 = r2 * r2;
  const double low = (1.0 + r) + pair(0) * r2, middle = pair(2) + pair(4) * r2, high = pair(6) + pair(8) * r2;
  const double sum = low + r4 * (middle + r4 * high);
  const std::uint64_t exponent = std::bit_cast<std::uint64_t>(shifted) << 52U;
  const auto result = std::bit_cast<double>(std::bit_cast<std::uint64_t>(sum) + exponent);
  return x < least ? 0.0 : result;
}

template <typename Visit>
void TokenWeights::visit_blocks(const Visit& visit) const {
  const std::size_t blocks = scan_.block_max.size(), whole = scan_.logits.size() / logit_block;
  const auto part = [&](const float* logits, std::size_t first, std::size_t end, float least) {
    if (first < end) visit({logits, scan_.block_max.data() + first, end - first}, first, least);
  };
  const auto range = [&](std::size_t first, std::size_t end, float least) {
    part(scan_.logits.data() + first * logit_block, first, std::min(end, whole), least);
    part(scan_.tail.data(), std::max(first, whole), end, least);
  };
  const auto last = static_cast<std::size_t>(cut_.last);
  const std::size_t mixed = std::min(last / logit_block, blocks);  // some that equal `least` are kept, some are not
  range(0, mixed, cut_.least);
  if (mixed == blocks) return;
  const std::array<float, logit_block> kept = kept_logits(mixed);
  part(kept.data(), mixed, mixed + 1, cut_.least);
  range(mixed + 1, blocks, std::nextafter(cut_.least, std::numeric_limits<float>::infinity()));
}

template <typename Visit>
void TokenWeights::visit_chunks(const Visit& visit) const {
  visit_blocks([&](const LogitBlocks& blocks, std::size_t first, float least) {
    for (std::size_t b = 0; b < blocks.count; b += logit_chunk)
      visit({blocks.logits + b * logit_block, blocks.block_max + b, std::min(logit_chunk, blocks.count - b)}, first + b,
            least);
  });
}

std::array<float, logit_block> TokenWeights::kept_logits(std::size_t block) const {
  const std::size_t begin = block * logit_block;
  std::array<float, logit_block> kept;
  kept.fill(-std::numeric_limits<float>::infinity());
  for (std::size_t i = begin; i < std::min(begin + logit_block, scan_.logits.size()); ++i) {
    const float logit = scan_.logits[i];
    if (logit > cut_.least || (logit == cut_.least && i <= static_cast<std::size_t>(cut_.last)))
      kept[i - begin] = logit;
  }
  return kept;
}

std::array<double, logit_block> TokenWeights::weights_of(std::size_t block) const {
  const std::array<float, logit_block> kept = kept_logits(block);
  std::array<double, logit_block> weights;
  double sum = 0.0;
  scan_.kernels->weigh({kept.data(), &scan_.block_max[block], 1}, weight(cut_.least), weights.data(), &sum);
  return weights;
}

double TokenWeights::sum_blocks() {
  std::vector<double>& sums = scratch_.block_weights;
  sums.resize(scan_.block_max.size());
  visit_blocks([&](const LogitBlocks& blocks, std::size_t first, float least) {
    scan_.kernels->weigh(blocks, weight(least), nullptr, &sums[first]);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

void TokenWeights::keep_at_least(float least) {
  if (least > cut_.least) cut_ = {.least = least};
}

void TokenWeights::keep_top_k(std::size_t k) {
  if (k < scan_.logits.size()) keep_at_least(kth_logit(scan_, k, scratch_.selection));
}

void TokenWeights::keep_min_p(double min_p) {
  keep_at_least(at_least(static_cast<double>(scan_.best) + temperature_ * std::log(min_p)));
}

void TokenWeights::keep_top_p(double top_p) {
  float lowest = scan_.best;
  visit_blocks([&](const LogitBlocks& blocks, std::size_t, float least) {
    lowest = scan_.kernels->find_lowest(blocks, least, lowest);
  });
  const LogitPlaces place = bucket_places(scan_.best, lowest, temperature_);
  // Tokens that weigh less than (1 - top_p) / vocabulary together weigh less than 1 - top_p of the best token alone, so
  // that those before them reach top_p: blocks of such tokens alone need no buckets. 1 is to spare for rounding.
  const double needed = std::log((1.0 - top_p) / static_cast<double>(scan_.logits.size())) - 1.0;
  const float least = std::max(cut_.least, at_least(static_cast<double>(scan_.best) + temperature_ * needed));

  const double target = top_p * fill_buckets(place, least);
  double mass = 0.0;
  std::uint16_t border = 0;
  while (border < bucket_count && mass + scratch_.buckets[border] < target) mass += scratch_.buckets[border++];
  find_bucket(place, least, border);
  // Where top_p is so near 1 that rounding keeps the sums from reaching it, all tokens stay.
  for (const ScoredToken& scored : scratch_.tokens) {
    mass += exp_of_negative((static_cast<double>(scored.logit) - static_cast<double>(scan_.best)) * scale_);
    if (mass < target) continue;
    cut_ = {scored.logit, scored.token};
    return;
  }
}

double TokenWeights::fill_buckets(const LogitPlaces& place, float least) {
  // Weights stay in the first cache. Storing all of them for the draw that follows would save it 20 us of exponentials
  // (AVX-512), but after a step of the model, which has taken the caches, it costs 10 us more than it saves.
  std::array<double, logit_chunk * logit_block> weights;
  std::array<std::uint16_t, logit_chunk * logit_block> places;
  std::array<double, logit_chunk> sums;
  std::vector<double>& buckets = scratch_.buckets;
  buckets.assign(bucket_count, 0.0);
  double total = 0.0;
  visit_chunks([&](const LogitBlocks& blocks, std::size_t, float kept) {
    const float counted = std::max(kept, least);
    scan_.kernels->weigh(blocks, weight(kept), weights.data(), sums.data());
    scan_.kernels->find_places(blocks, counted, place, places.data());
    for (std::size_t b = 0; b < blocks.count; ++b) {
      total += sums[b];
      if (blocks.block_max[b] < counted) continue;
      for (std::size_t i = b * logit_block; i < (b + 1) * logit_block; ++i) buckets[places[i]] += weights[i];
    }
  });
  return total;
}

void TokenWeights::find_bucket(const LogitPlaces& place, float least, std::uint16_t bucket) {
  std::array<std::uint16_t, logit_chunk * logit_block> places;
  scratch_.tokens.clear();
  visit_chunks([&](const LogitBlocks& blocks, std::size_t first, float kept) {
    const float counted = std::max(kept, least);
    scan_.kernels->find_places(blocks, counted, place, places.data());
    for (std::size_t b = 0; b < blocks.count; ++b) {
      if (blocks.block_max[b] < counted) continue;
      const std::size_t begin = b * logit_block, end = begin + logit_block;
      std::uint16_t hits = 0;  // not wider, so that vectors of places need no widening
      for (std::size_t i = begin; i < end; ++i) hits |= static_cast<std::uint16_t>(places[i] == bucket ? 1 : 0);
      for (std::size_t i = begin; hits != 0 && i < end; ++i)
        if (places[i] == bucket && blocks.logits[i] >= kept)
          scratch_.tokens.push_back({blocks.logits[i], static_cast<std::int32_t>(first * logit_block + i)});
    }
  });
  std::ranges::sort(scratch_.tokens, better);
}

std::int32_t TokenWeights::draw(double uniform) {
  const double target = uniform * sum_blocks();
  const std::vector<double>& sums = scratch_.block_weights;
  double mass = 0.0, before = 0.0;  // of all blocks so far, and without the chosen one
  std::size_t chosen = 0;           // the last of any weight, where rounding leaves the target at the very end
  for (std::size_t block = 0; block < sums.size() && target >= mass; ++block) {
    if (sums[block] == 0.0) continue;
    chosen = block;
    before = mass;
    mass += sums[block];
  }
  const std::array<double, logit_block> weights = weights_of(chosen);
  mass = before;
  std::size_t place = 0;
  for (std::size_t i = 0; i < logit_block && target >= mass; ++i) {
    if (weights[i] == 0.0) continue;
    place = i;
    mass += weights[i];
  }
  return static_cast<std::int32_t>(chosen * logit_block + place);
}

std::vector<double> TokenWeights::probabilities() {
  const double total = sum_blocks();
  std::vector<double> result(scan_.logits.size(), 0.0);
  for (std::size_t begin = 0; begin < result.size(); begin += logit_block) {
    if (scratch_.block_weights[begin / logit_block] == 0.0) continue;
    const std::array<double, logit_block> weights = weights_of(begin / logit_block);
    for (std::size_t i = begin; i < std::min(begin + logit_block, result.size()); ++i)
      result[i] = weights[i - begin] / total;
  }
  return result;
}

}  // namespace lamella
