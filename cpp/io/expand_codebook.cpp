// Types whose codes name a vector of eight or four numbers in a codebook: 256 elements a block, in sub-blocks of 16 or
// 32 with a scale of 3 or 4 bits each. First the codes of a whole block become signed bytes, eight at a time in a
// 64-bit word, then the bytes are scaled. No product is rounded: scale (11 bits of d, 5 of its factor) and code (6 bits)
// take 22 bits at most, so the order of factors is free.
#include <array>
#include <bit>

#include "io/expand_blocks.h"
#include "io/gguf_codebooks.h"

namespace lamella::io {
namespace {

constexpr std::uint64_t each_byte = 0x0101010101010101;

/// A block's codes, a signed byte each.
using Codes = std::array<Byte, 256>;

/// Any number is an index.
template <typename Entry, std::size_t entries>
Entry entry(const std::array<Entry, entries>& codebook, std::size_t index) noexcept {
  static_assert(std::has_single_bit(entries));
  return codebook[index % entries];
}

void set_eight(Codes& codes, std::size_t eight, std::uint64_t bytes) noexcept {
  std::memcpy(&codes[eight * 8], &bytes, sizeof bytes);
}

/// Byte i negated where bit i of `signs` is set. No byte is 0, so that adding one to its complement does not carry.
std::uint64_t with_signs(std::uint64_t magnitudes, Byte signs) noexcept {
  const std::uint64_t spread = signs * each_byte & 0x8040201008040201;  // bit i in byte i
  const std::uint64_t negative = (spread + 0x7f * each_byte) >> 7 & each_byte;  // 1 where it is set
  return (magnitudes ^ negative * 0xff) + negative;
}

/// Seven stored signs and the eighth, which makes the number of negative ones even.
Byte eight_signs(std::uint32_t stored) noexcept {
  const std::uint32_t seven = stored & 127;
  return static_cast<Byte>(seven | (0x6996u >> ((seven ^ seven >> 4) & 15) & 1) << 7);
}

std::uint64_t pair(std::uint32_t first, std::uint32_t second) noexcept {
  return first | static_cast<std::uint64_t>(second) << 32;
}

/// `scale(group)` times the codes, in groups of `size`.
template <std::size_t size, typename Scale>
void scale_groups(const Codes& codes, float* __restrict out, Scale scale) noexcept {
  for (std::size_t group = 0; group < 256 / size; ++group) {
    const float factor = scale(group);
    for (std::size_t i = group * size; i < (group + 1) * size; ++i)
      out[i] = factor * static_cast<float>(static_cast<std::int8_t>(codes[i]));
  }
}

/// Eight times an IQ1 vector with its offset, which is -1/8 or 1/8: codes of -9 to 9.
std::uint64_t iq1_codes(std::size_t index, bool negative) noexcept {
  return (entry(iq1_codebook, index) + (negative ? 0 : 2 * each_byte)) ^ 0x80 * each_byte;
}

// Eight low bits of an index in a byte; four times three high bits, a scale and an offset's sign in a 16-bit word.
void expand_iq1_s(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const Byte *low = in + 2, *words = in + 34;
  const auto word = [words](std::size_t group) { return load<std::uint16_t>(words + group * 2); };
  Codes codes;
  for (std::size_t eight = 0; eight < 32; ++eight) {
    const int high = word(eight / 4);
    const auto index = static_cast<std::size_t>(low[eight] | (high >> eight % 4 * 3 & 7) << 8);
    set_eight(codes, eight, iq1_codes(index, (high & 0x8000) != 0));
  }
  scale_groups<32>(codes, out,
                   [&](std::size_t group) { return d * static_cast<float>(2 * (word(group) >> 12 & 7) + 1) * 0.125f; });
}

// Three high bits of an index and its offset's sign are a nibble. Four 16-bit words hold four scales of three bits each,
// and in their top nibbles d.
void expand_iq1_m(const Byte* __restrict in, float* __restrict out) noexcept {
  const Byte *low = in, *high = in + 32, *words = in + 48;
  const auto packed = load<std::uint64_t>(words);
  const auto half = static_cast<std::uint16_t>((packed >> 12 & 0xf) | (packed >> 24 & 0xf0) | (packed >> 36 & 0xf00) |
                                               (packed >> 48 & 0xf000));
  const float d = f32_from_f16(half);
  Codes codes;
  for (std::size_t eight = 0; eight < 32; ++eight) {
    const int more = nibble(high, eight);
    set_eight(codes, eight, iq1_codes(static_cast<std::size_t>(low[eight] | (more & 7) << 8), (more & 8) != 0));
  }
  scale_groups<16>(codes, out, [&](std::size_t group) {
    const auto scale = static_cast<int>(packed >> (group / 4 * 16 + group % 4 * 3) & 7);
    return d * static_cast<float>(2 * scale + 1) * 0.125f;
  });
}

/// The scale of IQ2 types and, over 2, of IQ3_XXS.
float quarter_scale(float d, int code) noexcept { return d * (0.5f + static_cast<float>(code)) * 0.25f; }

// 32 elements: four indices of eight bits; four times seven signs and a scale in a 32-bit word.
void expand_iq2_xxs(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const Byte* groups = in + 2;
  const auto word = [groups](std::size_t group) { return load<std::uint32_t>(groups + group * 8 + 4); };
  Codes codes;
  for (std::size_t eight = 0; eight < 32; ++eight) {
    const std::size_t index = groups[eight / 4 * 8 + eight % 4];
    set_eight(codes, eight, with_signs(entry(iq2_xxs_codebook, index), eight_signs(word(eight / 4) >> eight % 4 * 7)));
  }
  scale_groups<32>(codes, out,
                   [&](std::size_t group) { return quarter_scale(d, static_cast<int>(word(group) >> 28)); });
}

// Eight elements: an index of nine bits and seven signs in a 16-bit word.
void expand_iq2_xs(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const Byte *words = in + 2, *scales = in + 66;
  Codes codes;
  for (std::size_t eight = 0; eight < 32; ++eight) {
    const auto word = load<std::uint16_t>(words + eight * 2);
    set_eight(codes, eight, with_signs(entry(iq2_xs_codebook, word), eight_signs(word >> 9)));
  }
  scale_groups<16>(codes, out, [&](std::size_t group) { return quarter_scale(d, nibble(scales, group)); });
}

// Two high bits of an index, and all eight signs of a vector.
void expand_iq2_s(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const Byte *low = in + 2, *signs = in + 34, *high = in + 66, *scales = in + 74;
  Codes codes;
  for (std::size_t eight = 0; eight < 32; ++eight) {
    const auto index = static_cast<std::size_t>(low[eight] | (high[eight / 4] >> eight % 4 * 2 & 3) << 8);
    set_eight(codes, eight, with_signs(entry(iq2_s_codebook, index), signs[eight]));
  }
  scale_groups<16>(codes, out, [&](std::size_t group) { return quarter_scale(d, nibble(scales, group)); });
}

// Indices of vectors of four; signs and scales as in IQ2_XXS.
void expand_iq3_xxs(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const Byte *low = in + 2, *words = in + 66;
  const auto word = [words](std::size_t group) { return load<std::uint32_t>(words + group * 4); };
  Codes codes;
  for (std::size_t eight = 0; eight < 32; ++eight) {
    const std::uint64_t magnitudes =
        pair(entry(iq3_xxs_codebook, low[2 * eight]), entry(iq3_xxs_codebook, low[2 * eight + 1]));
    set_eight(codes, eight, with_signs(magnitudes, eight_signs(word(eight / 4) >> eight % 4 * 7)));
  }
  scale_groups<32>(codes, out,
                   [&](std::size_t group) { return quarter_scale(d, static_cast<int>(word(group) >> 28)) * 2; });
}

// A ninth bit of every index, and all eight signs of two vectors.
void expand_iq3_s(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const Byte *low = in + 2, *high = in + 66, *signs = in + 74, *scales = in + 106;
  const auto vector = [low, high](std::size_t four) {
    return entry(iq3_s_codebook, static_cast<std::size_t>(low[four] | (high[four / 8] >> four % 8 & 1) << 8));
  };
  Codes codes;
  for (std::size_t eight = 0; eight < 32; ++eight)
    set_eight(codes, eight, with_signs(pair(vector(2 * eight), vector(2 * eight + 1)), signs[eight]));
  scale_groups<32>(codes, out,
                   [&](std::size_t group) { return d * static_cast<float>(1 + 2 * nibble(scales, group)); });
}

}  // namespace

Expand expansion_of_codebook(StorageType type) noexcept {
  switch (type) {
    case StorageType::iq1_s: return expand_blocks<256, 50, expand_iq1_s>;
    case StorageType::iq1_m: return expand_blocks<256, 56, expand_iq1_m>;
    case StorageType::iq2_xxs: return expand_blocks<256, 66, expand_iq2_xxs>;
    case StorageType::iq2_xs: return expand_blocks<256, 74, expand_iq2_xs>;
    case StorageType::iq2_s: return expand_blocks<256, 82, expand_iq2_s>;
    case StorageType::iq3_xxs: return expand_blocks<256, 98, expand_iq3_xxs>;
    case StorageType::iq3_s: return expand_blocks<256, 110, expand_iq3_s>;
    default: return nullptr;
  }
}

}  // namespace lamella::io
