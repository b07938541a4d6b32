#include "runtime/token_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

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

double TokenWeights::sum_blocks(bool store) {
  std::vector<double>& sums = scratch_.block_weights;
  sums.resize(scan_.block_max.size());
  if (store) scratch_.weights.resize(sums.size() * logit_block);
  visit_blocks([&](const LogitBlocks& blocks, std::size_t first, float least) {
    double* weights = stored_ || store ? scratch_.weights.data() + first * logit_block : nullptr;
    if (stored_) {
      scan_.kernels->sum_kept(blocks, least, weights, &sums[first]);
    } else {
      scan_.kernels->weigh(blocks, weight(least), weights, &sums[first]);
    }
  });
  stored_ = stored_ || store;
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
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
  const double target = top_p * sum_blocks(true);
  // Mostly few tokens have nearly all of the weight. None weighs more than 1.
  constexpr std::size_t few = 64;
  if (target <= static_cast<double>(few)) {
    float least = cut_.least;
    if (few < scan_.logits.size()) least = std::max(least, kth_logit(scan_, few, scratch_.selection));
    scratch_.tokens.clear();
    visit_at_least(scan_, least, [&](std::int32_t token, float logit) { scratch_.tokens.push_back({logit, token}); });
    if (cut_at(0.0, target)) return;
  }
  keep_by_buckets(top_p, target);
}

bool TokenWeights::cut_at(double mass, double target) {
  if (!std::ranges::is_sorted(scratch_.tokens, better)) std::ranges::sort(scratch_.tokens, better);
  for (const ScoredToken& scored : scratch_.tokens) {
    mass += scratch_.weights[static_cast<std::size_t>(scored.token)];
    if (mass < target) continue;
    cut_ = {scored.logit, scored.token};
    return true;
  }
  return false;
}

void TokenWeights::keep_by_buckets(double top_p, double target) {
  float lowest = scan_.best;
  visit_blocks([&](const LogitBlocks& blocks, std::size_t, float least) {
    lowest = scan_.kernels->find_lowest(blocks, least, lowest);
  });
  const LogitPlaces place = bucket_places(scan_.best, lowest, temperature_);
  // Tokens that weigh less than (1 - top_p) / vocabulary together weigh less than 1 - top_p of the best token alone, so
  // that those before them reach top_p: blocks of such tokens alone need no buckets. 1 is to spare for rounding.
  const double needed = std::log((1.0 - top_p) / static_cast<double>(scan_.logits.size())) - 1.0;
  const float least = std::max(cut_.least, at_least(static_cast<double>(scan_.best) + temperature_ * needed));
  const auto each_block = [&](const auto& body) {
    for (std::size_t block = 0; block < scan_.block_max.size(); ++block)
      if (scan_.block_max[block] >= least) body(block * logit_block);
  };
  std::vector<std::uint16_t>& places = scratch_.places;
  places.resize(scan_.block_max.size() * logit_block);
  visit_blocks([&](const LogitBlocks& blocks, std::size_t first, float) {
    scan_.kernels->find_places(blocks, least, place, &places[first * logit_block]);
  });
  scratch_.buckets.assign(bucket_count, 0.0);
  each_block([&](std::size_t begin) {
    for (std::size_t i = begin; i < begin + logit_block; ++i) scratch_.buckets[places[i]] += scratch_.weights[i];
  });
  double mass = 0.0;
  std::uint16_t border = 0;  // not wider: compared with places in vectors
  while (border < bucket_count && mass + scratch_.buckets[border] < target) mass += scratch_.buckets[border++];
  scratch_.tokens.clear();
  each_block([&](std::size_t begin) {
    unsigned hits = 0;
    for (std::size_t i = begin; i < begin + logit_block; ++i) hits += places[i] == border ? 1 : 0;
    if (hits == 0) return;
    for (std::size_t i = begin; i < std::min(begin + logit_block, scan_.logits.size()); ++i)
      if (places[i] == border && scan_.logits[i] >= cut_.least)
        scratch_.tokens.push_back({scan_.logits[i], static_cast<std::int32_t>(i)});
  });
  // Where top_p is so near 1 that rounding keeps the sums from reaching it, all tokens stay.
  static_cast<void>(cut_at(mass, target));
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
