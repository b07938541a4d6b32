// One group of int4 or int8: the arithmetic that plain rounding and the clip search share.
#pragma once

#include <cstdint>

#include "base/float_bits.h"

namespace lamella {

/// What a group's codes mean: value = scale * (code - zero) + minimum, code in [0, levels]. Scale and minimum are the
/// values of their stored fp16.
struct GroupFit {
  float scale = 0.0F, minimum = 0.0F;
  std::int32_t zero = 0;
};

/// A group's numbers, readable up to `padded`, a multiple of 16, with zeros behind `count`: loops take 16 at a time.
struct GroupValues {
  const float* values;
  std::int64_t count, padded;
};

/// The least and the largest number of a group, and 0 where both have one sign.
struct Ends {
  float low = 0.0F, high = 0.0F;
  [[nodiscard]] float largest() const noexcept { return -low > high ? -low : high; }
};
[[nodiscard]] Ends ends_of(const GroupValues& group) noexcept;

/// The least squared error for a symmetric group (zero 8), whose ends are not both 0.
[[nodiscard]] GroupFit search_symmetric(const GroupValues& group, const Ends& ends) noexcept;
/// The same for a group with an integer zero in [0, 15].
[[nodiscard]] GroupFit search_zero(const GroupValues& group, const Ends& ends) noexcept;
/// The same for a group with a minimum; `low` and `high` are its true ends, not equal.
[[nodiscard]] GroupFit search_minimum(const GroupValues& group, float low, float high) noexcept;

/// codes[i] = round((value - minimum) / scale) + zero, within [0, levels]; `zero` where the scale is 0.
void code_group(const GroupValues& group, const GroupFit& fit, std::int32_t levels, std::uint8_t* codes) noexcept;

inline constexpr float largest_f16 = 65504.0F;

/// To the nearest whole number, ties to even, for magnitudes below 2^22: no call, so that loops vectorise.
[[nodiscard]] inline float nearest(float value) noexcept {
  constexpr float magic = 0x1.8p23F;
  return (value + magic) - magic;
}

[[nodiscard]] inline float rounded_to_f16(float value) noexcept { return f32_from_f16(f16_from_f32(value)); }

}  // namespace lamella
