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

template <Element element>
float number(std::uint32_t bits, const GroupScale& by) noexcept {
  if constexpr (element == Element::f32) {
    return std::bit_cast<float>(bits);
  } else if constexpr (element == Element::bf16) {
    return f32_from_bf16(static_cast<std::uint16_t>(bits));
  } else if constexpr (element == Element::f16) {
    return f32_from_f16(static_cast<std::uint16_t>(bits));
  } else {
    // At most 9 bits times 11 (fp16): exact. A whole row's fp32 scale rounds once.
    const float scaled = by.scale * static_cast<float>(static_cast<std::int32_t>(bits) - by.bias);
    return scaled + by.minimum;
  }
}

/// The numbers of one group, from words that stand `stride` bytes apart.
template <Element element>
void unpack_group(const std::byte* words, std::int64_t stride, std::int64_t inputs, const GroupScale& by,
                  float* row) noexcept {
  constexpr std::int64_t bits = bits_of(element), word_inputs = 32 / bits;
  constexpr std::uint32_t mask = bits == 32 ? ~0U : (1U << bits) - 1U;
  const auto unpack = [&](std::int64_t count) {
    const auto word = load<std::uint32_t>(words);
    for (std::int64_t i = 0; i < count; ++i) row[i] = number<element>(word >> bit_offset(word_inputs, i) & mask, by);
  };
  for (; inputs >= word_inputs; inputs -= word_inputs, words += stride, row += word_inputs) unpack(word_inputs);
  if (inputs > 0) unpack(inputs);
}

template <Element element>
void unpack(const PackedMatrix& matrix, std::int64_t output, float* row) noexcept {
  const PanelLayout layout = matrix.layout();
  const std::int64_t stride = layout.tiles_of(output / panel_outputs) * tile_outputs * 4;
  const auto words = [&](std::int64_t group) { return matrix.data + layout.word_offset(output, group, 0); };
  // Every word stands in a line of its own, and the row of a token is in no cache, so all lines are asked for first.
  for (std::int64_t group = 0; group < layout.groups; ++group)
    for (std::int64_t word = 0; word < layout.words_of(group); ++word) __builtin_prefetch(words(group) + word * stride);
  for (std::int64_t group = 0; group < layout.groups; ++group)
    unpack_group<element>(words(group), stride, layout.inputs_of(group), group_scale(matrix, layout, output, group),
                          row + group * layout.group_inputs);
}

}  // namespace

void unpack_row(const PackedMatrix& matrix, std::int64_t output, float* row) noexcept {
  switch (matrix.format.element) {
    case Element::f32: return unpack<Element::f32>(matrix, output, row);
    case Element::bf16: return unpack<Element::bf16>(matrix, output, row);
    case Element::f16: return unpack<Element::f16>(matrix, output, row);
    case Element::i8: return unpack<Element::i8>(matrix, output, row);
    case Element::i4: return unpack<Element::i4>(matrix, output, row);
  }
}

}  // namespace lamella
