#include "memory/panels.h"

#include <bit>
#include <cstring>

#include "base/float_bits.h"

namespace lamella {
namespace {

template <typename T>
T load(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// What a group's codes become numbers with: value = scale * (code - bias) + minimum.
struct GroupScale {
  float scale = 1.0F, minimum = -0.0F;  // -0: what it is added to keeps its sign, also a zero
  std::int32_t bias = 0;
};

GroupScale group_scale(const PackedMatrix& matrix, const PanelLayout& layout, std::int64_t output, std::int64_t group) {
  GroupScale result{.bias = code_bias(matrix.format)};
  const std::byte* scale = matrix.data + layout.scale_offset(output, group);
  const std::byte* offset = matrix.data + layout.offset_offset(output, group);
  if (matrix.format.scale == Scale::f32) result.scale = load<float>(scale);
  if (matrix.format.scale == Scale::f16) result.scale = f32_from_f16(load<std::uint16_t>(scale));
  if (matrix.format.offset == Offset::minimum) result.minimum = f32_from_f16(load<std::uint16_t>(offset));
  if (matrix.format.offset == Offset::zero) result.bias = load<std::uint8_t>(offset);
  return result;
}

float number(Element element, std::uint32_t bits, const GroupScale& by) noexcept {
  switch (element) {
    case Element::f32: return std::bit_cast<float>(bits);
    case Element::bf16: return f32_from_bf16(static_cast<std::uint16_t>(bits));
    case Element::f16: return f32_from_f16(static_cast<std::uint16_t>(bits));
    case Element::i8:
    case Element::i4: {
      // At most 9 bits times 11 (fp16): exact. A whole row's fp32 scale rounds once.
      const float scaled = by.scale * static_cast<float>(static_cast<std::int32_t>(bits) - by.bias);
      return scaled + by.minimum;
    }
  }
  return 0.0F;
}

}  // namespace

void unpack_row(const PackedMatrix& matrix, std::int64_t output, float* row) noexcept {
  const PanelLayout layout = matrix.layout();
  const int bits = bits_of(matrix.format.element);
  const std::uint32_t mask = bits == 32 ? ~0U : (1U << bits) - 1U;
  for (std::int64_t group = 0; group < layout.groups; ++group) {
    const GroupScale by = group_scale(matrix, layout, output, group);
    const std::int64_t inputs = layout.inputs_of(group);
    const std::byte* words = matrix.data + layout.word_offset(output, group, 0);
    const std::int64_t stride = layout.word_offset(output, group, 1) - layout.word_offset(output, group, 0);
    for (std::int64_t i = 0; i < inputs; ++i) {
      const auto word = load<std::uint32_t>(words + i / layout.word_inputs * stride);
      row[group * layout.group_inputs + i] =
          number(matrix.format.element, word >> layout.bit_offset(i % layout.word_inputs) & mask, by);
    }
  }
}

}  // namespace lamella
