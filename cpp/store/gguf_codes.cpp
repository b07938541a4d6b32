#include "store/gguf_codes.h"

#include <algorithm>
#include <cstring>

#include "base/float_bits.h"

// The layouts are ggml's; io/expand.cpp gives the same blocks as floats.
namespace lamella {
namespace {

/// A block's place in the source and in the rows.
struct Block {
  const std::uint8_t* in;
  std::uint8_t* codes;
  std::uint32_t* scales;
  std::uint16_t* offsets;
};

std::uint16_t half(const std::uint8_t* from) noexcept {
  std::uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return bits;
}
bool is_finite(std::uint16_t bits) noexcept { return (bits & 0x7c00U) != 0x7c00U; }

/// 32 elements in 16 bytes: low nibbles are the first 16, high nibbles the last.
void split_nibbles(const std::uint8_t* __restrict in, std::uint8_t* __restrict codes) noexcept {
  for (int i = 0; i < 16; ++i) {
    codes[i] = in[i] & 15U;
    codes[i + 16] = in[i] >> 4U;
  }
}

bool take_q4_0(const Block& block) noexcept {
  block.scales[0] = half(block.in);
  split_nibbles(block.in + 2, block.codes);
  return is_finite(half(block.in));
}

bool take_q4_1(const Block& block) noexcept {
  block.scales[0] = half(block.in);
  block.offsets[0] = half(block.in + 2);
  split_nibbles(block.in + 4, block.codes);
  return is_finite(half(block.in)) && is_finite(half(block.in + 2));
}

bool take_q8_0(const Block& block) noexcept {
  block.scales[0] = half(block.in);
  for (int i = 0; i < 32; ++i) block.codes[i] = static_cast<std::uint8_t>(block.in[2 + i] ^ 0x80U);
  return is_finite(half(block.in));
}

/// Eight groups of 32; the codes of two neighbours share 32 bytes. Scales and minima of six bits, packed as q4_k does,
/// become fp16: value = f16(d * scale) * code + f16(-(m * minimum)).
bool take_q4_k(const Block& block) noexcept {
  const float d = f32_from_f16(half(block.in)), m = f32_from_f16(half(block.in + 2));
  const std::uint8_t *packed = block.in + 4, *codes = block.in + 16;
  bool finite = is_finite(half(block.in)) && is_finite(half(block.in + 2));
  for (int group = 0; group < 8; ++group) {
    unsigned scale = packed[group % 4] & 63U, least = packed[group % 4 + 4] & 63U;
    if (group >= 4) {
      scale = (packed[group + 4] & 15U) | (packed[group - 4] >> 2U & 48U);
      least = (packed[group + 4] >> 4U) | (packed[group] >> 2U & 48U);
    }
    const std::uint16_t scale_bits = f16_from_f32(d * static_cast<float>(scale));
    const std::uint16_t minimum_bits = f16_from_f32(-(m * static_cast<float>(least)));
    finite = finite && is_finite(scale_bits) && is_finite(minimum_bits);
    block.scales[group] = scale_bits;
    block.offsets[group] = minimum_bits;
    const std::uint8_t* from = codes + std::ptrdiff_t{32} * (group / 2);
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) block.codes[group * 32 + i] = static_cast<std::uint8_t>(from[i] >> shift & 15);
  }
  return finite;
}

}  // namespace

std::optional<WeightFormat> kept_format(io::StorageType type) noexcept {
  switch (type) {
    case io::StorageType::q4_0: return formats::q4_0;
    case io::StorageType::q4_1:
    case io::StorageType::q4_k: return formats::q4_1;
    case io::StorageType::q8_0: return formats::q8_0;
    default: return std::nullopt;
  }
}

bool keeps_codes(io::StorageType type, const WeightFormat& format) noexcept {
  std::optional<WeightFormat> kept = kept_format(type);
  if (!kept || format.input == LinearInput::int8_rotated) return false;
  kept->input = format.input;
  return *kept == format;
}

bool take_codes(io::StorageType type, const std::byte* stored, std::int64_t row, CodedRows& out) noexcept {
  const io::StorageTraits& layout = io::traits(type);
  const std::int64_t blocks = out.inputs / layout.elements, groups = layout.elements / 32;
  bool finite = true;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const Block block{.in = reinterpret_cast<const std::uint8_t*>(stored) + i * layout.bytes,
                      .codes = out.codes.data() + row * out.inputs + i * layout.elements,
                      .scales = out.scales.data() + row * out.groups + i * groups,
                      .offsets = out.offsets.empty() ? nullptr : out.offsets.data() + row * out.groups + i * groups};
    switch (type) {
      case io::StorageType::q4_0: finite = take_q4_0(block) && finite; break;
      case io::StorageType::q4_1: finite = take_q4_1(block) && finite; break;
      case io::StorageType::q4_k: finite = take_q4_k(block) && finite; break;
      case io::StorageType::q8_0: finite = take_q8_0(block) && finite; break;
      default: return false;
    }
  }
  return finite;
}

}  // namespace lamella
