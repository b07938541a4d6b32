#include "store/quantise.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/check.h"
#include "memory/rotation.h"
#include "store/quantise_group.h"

namespace lamella {
namespace {

/// Magnitudes compare as their bits do, and this loop vectorises.
float largest_of(const float* values, std::int64_t count) noexcept {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i)
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
  return std::bit_cast<float>(largest);
}

/// A whole row with one fp32 scale. Below 2^-126 the scale's inverse overflows: such rows, at most 2^-119, become zero.
void quantise_row(const float* row, std::int64_t inputs, std::uint8_t* codes, std::uint32_t& scale_bits) noexcept {
  float scale = largest_of(row, inputs) / 127.0F;
  if (scale < std::numeric_limits<float>::min()) scale = 0.0F;
  scale_bits = std::bit_cast<std::uint32_t>(scale);
  const float inverse = scale == 0.0F ? 0.0F : 1.0F / scale;
  for (std::int64_t i = 0; i < inputs; ++i)
    codes[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(nearest(row[i] * inverse)) + 128);
}

/// absmax / most rounded to fp16, and up where rounding down would clip: in fp16's subnormal range the steps are large.
float symmetric_scale(float largest, float most) noexcept {
  const std::uint16_t bits = f16_from_f32(largest / most);
  const float scale = f32_from_f16(bits);
  return scale != 0.0F && scale * (most + 0.5F) < largest ? f32_from_f16(static_cast<std::uint16_t>(bits + 1)) : scale;
}

/// int8, int4 and the formats with an integer zero: 0 always has a code of its own.
GroupFit scaled_fit(const GroupValues& group, const WeightFormat& format, Rounding rounding,
                    std::int32_t levels) noexcept {
  const Ends ends = ends_of(group);
  const bool searched = rounding == Rounding::clip_search && format.element == Element::i4;
  if (format.offset == Offset::none) {
    const std::int32_t largest_code = levels / 2;  // 7 or 127, on either side of zero
    const float scale = symmetric_scale(ends.largest(), static_cast<float>(largest_code));
    if (searched && scale != 0.0F) return search_symmetric(group, ends);
    return {.scale = scale, .zero = code_bias(format)};
  }
  const float scale = rounded_to_f16((ends.high - ends.low) / static_cast<float>(levels));
  if (scale == 0.0F) return {};
  if (searched) return search_zero(group, ends);
  return {.scale = scale, .zero = std::min(static_cast<std::int32_t>(nearest(-ends.low / scale)), levels)};
}

GroupFit minimum_fit(const GroupValues& group, const WeightFormat& format, Rounding rounding,
                     std::int32_t levels) noexcept {
  const auto [low, high] = std::minmax_element(group.values, group.values + group.count);
  const float minimum = rounded_to_f16(*low);
  const float scale = rounded_to_f16((*high - minimum) / static_cast<float>(levels));
  if (rounding == Rounding::clip_search && format.element == Element::i4 && scale > 0.0F && *high > *low)
    return search_minimum(group, *low, *high);
  return {.scale = scale > 0.0F ? scale : 0.0F, .minimum = minimum};
}

}  // namespace

float largest_magnitude(const WeightFormat& format) noexcept {
  if (format.element == Element::bf16) return std::bit_cast<float>(0x7f7f7fffU);  // above, bf16 rounds to infinity
  if (format.element == Element::f16) return std::bit_cast<float>(0x477fefffU);   // the last float below 65520
  if (format.scale == Scale::f32) return 0x1p127F;  // near the largest float, a rounded scale times 127 overflows
  return format.scale == Scale::f16 ? largest_f16 : std::numeric_limits<float>::max();
}

void quantise_rows(std::span<const float> rows, std::int64_t count, std::int64_t inputs, const WeightFormat& format,
                   Rounding rounding, CodedRows& out) {
  check(is_quantised(format) && std::int64_t(rows.size()) == count * inputs, "quantise ", rows.size(), " numbers as ",
        count, " rows of ", inputs, " in ", to_string(format));
  std::vector<float> rotated;
  if (format.input == LinearInput::int8_rotated) {
    rotated.assign(rows.begin(), rows.end());
    rows = rotated;
    for (std::int64_t row = 0; row < count; ++row)
      rotate_weights(
          std::span(rotated).subspan(static_cast<std::size_t>(row * inputs), static_cast<std::size_t>(inputs)));
  }
  out.resize(format, count, inputs);
  if (format.group == 0) {
    for (std::int64_t row = 0; row < count; ++row)
      quantise_row(rows.data() + row * inputs, inputs, out.codes.data() + row * inputs,
                   out.scales[static_cast<std::size_t>(row)]);
    return;
  }
  constexpr std::int64_t loop = 16;
  const std::int32_t levels = (1 << bits_of(format.element)) - 1;
  std::vector<float> padded(static_cast<std::size_t>(format.group), 0.0F);  // of a row's short last group
  for (std::int64_t i = 0; i < count * out.groups; ++i) {
    const std::int64_t begin = i % out.groups * format.group;
    const float* from = rows.data() + i / out.groups * inputs + begin;
    const std::int64_t length = std::min<std::int64_t>(format.group, inputs - begin);
    if (length % loop != 0) {
      std::copy_n(from, length, padded.begin());
      from = padded.data();
    }
    const GroupValues group{.values = from, .count = length, .padded = (length + loop - 1) / loop * loop};
    const GroupFit fit = format.offset == Offset::minimum ? minimum_fit(group, format, rounding, levels)
                                                          : scaled_fit(group, format, rounding, levels);
    code_group(group, fit, levels, out.codes.data() + i / out.groups * inputs + begin);
    out.scales[static_cast<std::size_t>(i)] = f16_from_f32(fit.scale);
    if (format.offset != Offset::none)
      out.offsets[static_cast<std::size_t>(i)] =
          format.offset == Offset::minimum ? f16_from_f32(fit.minimum) : static_cast<std::uint16_t>(fit.zero);
  }
}

}  // namespace lamella
