#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

// Every intermediate is rounded to fp32 where transformers holds an fp32 tensor, and stays double where it holds a
// Python number. Powers are taken in double and rounded once, so they are the nearest fp32 to what the formula says.

namespace lamella {
namespace {

float power(float base, double exponent) { return static_cast<float>(std::pow(static_cast<double>(base), exponent)); }

/// base^(2i / rotary_dim) for i < rotary_dim / 2: the wavelengths over 2 pi.
std::vector<float> wavelengths(std::int32_t rotary_dim, float base) {
  std::vector<float> out(static_cast<std::size_t>(rotary_dim / 2));
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = power(base, static_cast<float>(2 * i) / static_cast<float>(rotary_dim));
  return out;
}

std::vector<float> reciprocals(std::vector<float> values) {
  for (float& value : values) value = 1.0F / value;
  return values;
}

/// The base that stretches the longest wavelength by the ratio of lengths; within the trained context theta itself.
float dynamic_base(const RopeSpec& spec, std::int64_t length) {
  const double exponent = static_cast<double>(spec.rotary_dim) / (spec.rotary_dim - 2);
  if (length <= spec.original_max_positions)
    return static_cast<float>(spec.theta * std::pow(spec.factor - (spec.factor - 1), exponent));
  const float stretched =
      static_cast<float>(spec.factor) * static_cast<float>(length) / static_cast<float>(spec.original_max_positions);
  const float growth = power(stretched - static_cast<float>(spec.factor - 1), exponent);
  return static_cast<float>(spec.theta) * growth;
}

double yarn_magnitude(double scale, double weight) { return scale <= 1 ? 1.0 : 0.1 * weight * std::log(scale) + 1.0; }

float yarn_attention_factor(const RopeSpec& spec) {
  if (spec.attention_factor) return static_cast<float>(*spec.attention_factor);
  if (spec.mscale != 0 && spec.mscale_all_dim != 0)
    return static_cast<float>(yarn_magnitude(spec.factor, spec.mscale) /
                              yarn_magnitude(spec.factor, spec.mscale_all_dim));
  return static_cast<float>(yarn_magnitude(spec.factor, 1.0));
}

/// YaRN: dimensions that turn often keep their frequency, those that turn rarely are interpolated, with a ramp between.
std::vector<float> yarn_inverse(const RopeSpec& spec) {
  const auto dimension_of = [&](double rotations) {
    return spec.rotary_dim * std::log(spec.original_max_positions / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(spec.theta));
  };
  double low = dimension_of(spec.beta_fast);
  double high = dimension_of(spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, spec.rotary_dim - 1.0);
  if (low == high) high += 0.001;

  std::vector<float> out = wavelengths(spec.rotary_dim, static_cast<float>(spec.theta));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const float ramp =
        std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0F, 1.0F);
    const float keep = 1.0F - ramp;
    const float kept = 1.0F / out[i];
    const float interpolated = 1.0F / (static_cast<float>(spec.factor) * out[i]);
    out[i] = interpolated * (1.0F - keep) + kept * keep;
  }
  return out;
}

std::vector<float> longrope_inverse(const RopeSpec& spec, std::int64_t length) {
  const std::vector<float>& divisors = length > spec.original_max_positions ? spec.long_factor : spec.short_factor;
  std::vector<float> out = wavelengths(spec.rotary_dim, static_cast<float>(spec.theta));
  check(divisors.size() == out.size(), "longrope factors: ", divisors.size(), ", rotary_dim / 2: ", out.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = 1.0F / (divisors[i] * out[i]);
  return out;
}

float longrope_attention_factor(const RopeSpec& spec) {
  if (spec.attention_factor) return static_cast<float>(*spec.attention_factor);
  if (spec.factor <= 1.0) return 1.0F;
  return static_cast<float>(std::sqrt(1 + std::log(spec.factor) / std::log(spec.original_max_positions)));
}

/// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between blended.
std::vector<float> llama3_inverse(const RopeSpec& spec) {
  const auto context = static_cast<float>(spec.original_max_positions);
  const auto longest_kept = static_cast<float>(spec.original_max_positions / spec.high_freq_factor);
  const auto shortest_scaled = static_cast<float>(spec.original_max_positions / spec.low_freq_factor);
  const auto factor = static_cast<float>(spec.factor);

  std::vector<float> out = reciprocals(wavelengths(spec.rotary_dim, static_cast<float>(spec.theta)));
  for (float& inverse : out) {
    const float wavelength =
        (1.0F / inverse) * static_cast<float>(2 * std::numbers::pi);  // torch: number / tensor = 1/tensor * number
    if (wavelength < longest_kept) continue;
    if (wavelength > shortest_scaled) {
      inverse = inverse / factor;
      continue;
    }
    const float turns = (1.0F / wavelength) * context - static_cast<float>(spec.low_freq_factor);
    const float smooth = turns / static_cast<float>(spec.high_freq_factor - spec.low_freq_factor);
    inverse = (1.0F - smooth) * inverse / factor + smooth * inverse;
  }
  return out;
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeSpec& spec, std::int64_t sequence_length) {
  const auto theta = static_cast<float>(spec.theta);
  switch (spec.scaling) {
    case RopeScaling::none: return {.inverse = reciprocals(wavelengths(spec.rotary_dim, theta))};
    case RopeScaling::linear: {
      std::vector<float> inverse = reciprocals(wavelengths(spec.rotary_dim, theta));
      for (float& value : inverse) value /= static_cast<float>(spec.factor);
      return {.inverse = std::move(inverse)};
    }
    case RopeScaling::dynamic_ntk:
      return {.inverse = reciprocals(wavelengths(spec.rotary_dim, dynamic_base(spec, sequence_length)))};
    case RopeScaling::yarn: return {.inverse = yarn_inverse(spec), .attention_factor = yarn_attention_factor(spec)};
    case RopeScaling::longrope:
      return {.inverse = longrope_inverse(spec, sequence_length), .attention_factor = longrope_attention_factor(spec)};
    case RopeScaling::llama3: return {.inverse = llama3_inverse(spec)};
  }
  check(false, "rope scaling ", static_cast<int>(spec.scaling));
  return {};
}

bool depends_on_length(const RopeSpec& spec) noexcept {
  if (spec.scaling == RopeScaling::dynamic_ntk) return true;
  return spec.scaling == RopeScaling::longrope && spec.short_factor != spec.long_factor;
}

}  // namespace lamella
