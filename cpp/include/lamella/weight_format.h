// How the numbers of a weight matrix are written down. A format is a record, not a name: kernels, packers and costs look
// at its fields, and presets name the useful ones.
#pragma once

#include <cstdint>
#include <string>

#include "lamella/types.h"

namespace lamella {

/// A stored code. i8 without an offset is two's complement, -128 to 127, and i4 without one is code - 8, -8 to 7; with
/// an offset both are unsigned.
enum class Element : std::uint8_t { f32, f16, bf16, i8, i4 };
/// What a code is multiplied by. One f32 a row (group 0), or one f16 a group.
enum class Scale : std::uint8_t { none, f32, f16 };
/// What joins the product: value = scale * code + minimum, or value = scale * (code - zero), zero an 8-bit integer.
enum class Offset : std::uint8_t { none, minimum, zero };
/// What a linear does to its inputs before it multiplies: leaves them in the engine's dtype, or rounds each token's row
/// to int8 with one scale, absmax / 127, as they are or after the rotation of memory/rotation.h, which spreads what stands
/// out in a few inputs over many; the weights are stored rotated then. The rotation is for linears: a table of embeddings
/// never has it.
enum class LinearInput : std::uint8_t { dtype, int8, int8_rotated };

/// One weight's format. `group` is the number of inputs that share a scale; 0 is the whole row. The last group of a row
/// may be shorter.
struct WeightFormat {
  Element element = Element::f32;
  std::int32_t group = 0;
  Scale scale = Scale::none;
  Offset offset = Offset::none;
  LinearInput input = LinearInput::dtype;

  bool operator==(const WeightFormat&) const = default;
};

namespace formats {
inline constexpr WeightFormat f32{.element = Element::f32};
inline constexpr WeightFormat f16{.element = Element::f16};
inline constexpr WeightFormat bf16{.element = Element::bf16};
inline constexpr WeightFormat int8_weight_only{.element = Element::i8, .scale = Scale::f32};
inline constexpr WeightFormat int8{.element = Element::i8, .scale = Scale::f32, .input = LinearInput::int8};
inline constexpr WeightFormat int8_rotated{
    .element = Element::i8, .scale = Scale::f32, .input = LinearInput::int8_rotated};
inline constexpr WeightFormat int4{.element = Element::i4, .group = 32, .scale = Scale::f16};
inline constexpr WeightFormat int4_a8{
    .element = Element::i4, .group = 32, .scale = Scale::f16, .input = LinearInput::int8};
// GGUF's, bit for bit.
inline constexpr WeightFormat q4_0 = int4;
inline constexpr WeightFormat q4_1{.element = Element::i4, .group = 32, .scale = Scale::f16, .offset = Offset::minimum};
inline constexpr WeightFormat q8_0{.element = Element::i8, .group = 32, .scale = Scale::f16};
}  // namespace formats

[[nodiscard, gnu::always_inline]] constexpr int bits_of(Element element) noexcept {
  switch (element) {
    case Element::f32: return 32;
    case Element::f16:
    case Element::bf16: return 16;
    case Element::i8: return 8;
    case Element::i4: return 4;
  }
  return 0;
}

/// The format of unquantised matrices for an engine of that dtype.
[[nodiscard]] constexpr WeightFormat float_format(DataType dtype) noexcept {
  return dtype == DataType::bf16 ? formats::bf16 : dtype == DataType::f16 ? formats::f16 : formats::f32;
}

/// Whether codes need a scale to become numbers.
[[nodiscard, gnu::always_inline]] constexpr bool is_quantised(const WeightFormat& format) noexcept {
  return format.element == Element::i8 || format.element == Element::i4;
}

/// What an unsigned code is diminished by where the format has no offset: 128 for i8, which the layout stores with its
/// sign bit turned, and 8 for i4.
[[nodiscard, gnu::always_inline]] constexpr std::int32_t code_bias(const WeightFormat& format) noexcept {
  if (!is_quantised(format) || format.offset != Offset::none) return 0;
  return format.element == Element::i8 ? 128 : 8;
}

/// Errors: invalid_argument for a record that no kernel reads: a float with a scale, integers without one, a group that
/// is no multiple of 32 or above 512, an f16 scale for a whole row or an f32 one for groups, an offset without groups.
void validate(const WeightFormat& format);

/// Whether a linear rounds its inputs to int8.
[[nodiscard, gnu::always_inline]] constexpr bool has_int8_inputs(const WeightFormat& format) noexcept {
  return format.input != LinearInput::dtype;
}

/// "float32", "int8", "int8/32:f16", "int4/32:f16+minimum", with ", int8 inputs" or ", rotated int8 inputs" where inputs
/// are quantised: for people.
[[nodiscard]] std::string to_string(const WeightFormat& format);

}  // namespace lamella
