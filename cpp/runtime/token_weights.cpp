#include "runtime/token_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "runtime/logit_scan.h"

namespace lamella {
namespace {

// Coefficients of r^2 to r^11: the polynomial that meets e^r in the 12 Chebyshev nodes of |r| <= ln(2) / 2, where it is
// within 2e-17 of it.
constexpr std::array<double, 10> exp_series = {
    0x1.0000000000011p-1,  0x1.555555555555ap-3,  0x1.555555554f0bap-5,  0x1.111111110f21ep-7,  0x1.6c16c1880029fp-10,
    0x1.a01a01b1461c5p-13, 0x1.a01991a10d9aep-16, 0x1.71ddf56d8deb5p-19, 0x1.28b4101c77212p-22, 0x1.af632a0f7e2cep-26};
constexpr double least_exponent = -708.0;

/// exp_of_negative, for loops that are to become vectors.
inline double exponential(double x) {
  constexpr double log2_e = 0x1.71547652b82fep+0, ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  constexpr double to_integer = 0x1.8p52;  // a sum with it has no fraction, and the integer in its lowest bits
  const double bounded = x < least_exponent ? least_exponent : x;
  const double shifted = bounded * log2_e + to_integer;
  const double power = shifted - to_integer;
  const double r = (bounded - power * ln2_high) - power * ln2_low;  // the first product is exact: 32 bits by 11
  // Estrin's scheme: in Horner's every step waits for the one before, a quarter more time.
  const auto pair = [&](std::size_t i) { return exp_series[i] + exp_series[i + 1] * r; };
  const double r2 = r * r, r4 = r2 * r2;
  const double low = (1.0 + r) + pair(0) * r2, middle = pair(2) + pair(4) * r2, high = pair(6) + pair(8) * r2;
  const double series = low + r4 * (middle + r4 * high);
  const std::uint64_t exponent = std::bit_cast<std::uint64_t>(shifted) << 52U;
  const auto result = std::bit_cast<double>(std::bit_cast<std::uint64_t>(series) + exponent);
  return x < least_exponent ? 0.0 : result;
}

/// The smallest float that is at least `value`.
float at_least(double value) {
  if (value <= static_cast<double>(std::numeric_limits<float>::lowest())) return std::numeric_limits<float>::lowest();
  const auto nearest = static_cast<float>(value);
  return static_cast<double>(nearest) < value ? std::nextafter(nearest, std::numeric_limits<float>::infinity())
                                              : nearest;
}

/// The sum of the first 2 * half values, in the first place: in a fixed order that vectors can follow.
template <std::size_t half>
void fold_sum(double* values) {
  for (std::size_t i = 0; i < half; ++i) values[i] += values[i + half];
  if constexpr (half > 1) fold_sum<half / 2>(values);
}

double block_sum(const double* weights) {
  std::array<double, logit_block / 2> sums;
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = weights[i] + weights[i + sums.size()];
  fold_sum<logit_block / 4>(sums.data());
  return sums[0];
}

/// Logits by their distance from the best one, in buckets that are equally wide but for the last, which has no end.
class Buckets {
 public:
  static constexpr std::size_t count = 1024;

  /// From `best` to `lowest`, or to where the weight has fallen to e^-32 and little is left to be told apart.
  Buckets(float best, float lowest, double temperature) : best_(best) {
    const double range = std::min(static_cast<double>(best) - static_cast<double>(lowest), 32.0 * temperature);
    constexpr double most = 1e30;  // a range of one denormal number must not take it beyond a float
    per_logit_ = static_cast<float>(std::min(static_cast<double>(count) / range, most));
  }
  /// Never falls as logits do, whatever is rounded.
  [[nodiscard]] std::size_t of(float logit) const noexcept {
    const float place = (best_ - logit) * per_logit_;
    return place < static_cast<float>(count - 1) ? static_cast<std::size_t>(place) : count - 1;
  }

 private:
  float best_, per_logit_;
};

}  // namespace

double exp_of_negative(double x) noexcept { return exponential(x); }

void TokenWeights::weigh(std::size_t block) {
  const std::size_t begin = block * logit_block;
  const float* logits = scan_.logits.data() + begin;
  double* weights = scratch_.weights.data() + begin;
  std::array<float, logit_block> padded;
  if (begin + logit_block > scan_.logits.size()) {
    padded.fill(-std::numeric_limits<float>::infinity());
    std::ranges::copy(scan_.logits.subspan(begin), padded.begin());
    logits = padded.data();
  }
  const double best = scan_.best, scale = scale_;
  const float least = cut_.least;
  if (weighed_) {
    for (std::size_t i = 0; i < logit_block; ++i) weights[i] = logits[i] < least ? 0.0 : weights[i];
  } else {
    for (std::size_t i = 0; i < logit_block; ++i) {
      const double value = exponential((static_cast<double>(logits[i]) - best) * scale);
      weights[i] = logits[i] < least ? 0.0 : value;
    }
  }
  const auto last = static_cast<std::size_t>(cut_.last);
  if (last >= begin + logit_block) return;
  for (std::size_t i = last < begin ? 0 : last + 1 - begin; i < logit_block; ++i)
    if (logits[i] == least) weights[i] = 0.0;
}

double TokenWeights::sum_blocks() {
  std::vector<double>& sums = scratch_.block_weights;
  sums.assign(scan_.block_max.size(), 0.0);
  scratch_.weights.resize(sums.size() * logit_block);
  double total = 0.0;
  for (std::size_t block = 0; block < sums.size(); ++block) {
    if (scan_.block_max[block] < cut_.least) continue;
    weigh(block);
    sums[block] = block_sum(scratch_.weights.data() + block * logit_block);
    total += sums[block];
  }
  weighed_ = true;
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
  const double target = top_p * sum_blocks();
  // Mostly few tokens have nearly all of the weight.
  constexpr std::size_t few = 64;
  float least = cut_.least;
  if (few < scan_.logits.size()) least = std::max(least, kth_logit(scan_, few, scratch_.selection));
  scratch_.tokens.clear();
  visit_at_least(scan_, least, [&](std::int32_t token, float logit) { scratch_.tokens.push_back({logit, token}); });
  if (!cut_at(0.0, target)) keep_by_buckets(top_p, target);
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
  for (const float logit : scan_.logits) {
    const float kept = logit < cut_.least ? lowest : logit;
    lowest = kept < lowest ? kept : lowest;
  }
  const Buckets buckets(scan_.best, lowest, temperature_);
  // Tokens that weigh less than (1 - top_p) / vocabulary together weigh less than 1 - top_p of the best token alone, so
  // that those before them reach top_p: they need no buckets. 1 is to spare for rounding.
  const double needed = std::log((1.0 - top_p) / static_cast<double>(scan_.logits.size())) - 1.0;
  const float least = std::max(cut_.least, at_least(static_cast<double>(scan_.best) + temperature_ * needed));
  scratch_.buckets.assign(Buckets::count, 0.0);
  visit_at_least(scan_, least, [&](std::int32_t token, float logit) {
    scratch_.buckets[buckets.of(logit)] += scratch_.weights[static_cast<std::size_t>(token)];
  });
  double mass = 0.0;
  std::size_t border = 0;
  while (border < Buckets::count && mass + scratch_.buckets[border] < target) mass += scratch_.buckets[border++];
  scratch_.tokens.clear();
  visit_at_least(scan_, least, [&](std::int32_t token, float logit) {
    if (buckets.of(logit) == border) scratch_.tokens.push_back({logit, token});
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
  const double* weights = scratch_.weights.data() + chosen * logit_block;
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
  for (std::size_t i = 0; i < result.size(); ++i)
    if (scratch_.block_weights[i / logit_block] > 0.0) result[i] = scratch_.weights[i] / total;
  return result;
}

}  // namespace lamella
