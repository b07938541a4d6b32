// Types whose codes are whole numbers on an even scale: a value is scale * code, with a minimum added or taken off in
// some.
#include <array>

#include "io/expand_blocks.h"

namespace lamella::io {
namespace {

// 32 elements: low nibbles are the first 16, high nibbles the last.
void expand_q4_0(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const Byte* codes = in + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((codes[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((codes[i] >> 4) - 8);
  }
}

void expand_q4_1(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in), m = load_half(in + 2);
  const Byte* codes = in + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(codes[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(codes[i] >> 4) + m;
  }
}

// The fifth bit of element i is bit i of a 32-bit word.
void expand_q5_0(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const auto high = load<std::uint32_t>(in + 2);
  const Byte* codes = in + 6;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(static_cast<int>((codes[i] & 15) | (high >> i & 1) << 4) - 16);
    out[i + 16] = d * static_cast<float>(static_cast<int>((codes[i] >> 4) | (high >> (i + 16) & 1) << 4) - 16);
  }
}

void expand_q5_1(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in), m = load_half(in + 2);
  const auto high = load<std::uint32_t>(in + 4);
  const Byte* codes = in + 8;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(static_cast<int>((codes[i] & 15) | (high >> i & 1) << 4)) + m;
    out[i + 16] = d * static_cast<float>(static_cast<int>((codes[i] >> 4) | (high >> (i + 16) & 1) << 4)) + m;
  }
}

void expand_q8_0(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<std::int8_t>(in[2 + i]));
}

// The k-quants: 256 elements in sub-blocks of 16 or 32, each with a scale of 4, 6 or 8 bits (and a minimum in q2, q4,
// q5).

void expand_q2_k(const Byte* __restrict in, float* __restrict out) noexcept {
  const Byte *scales = in, *codes = in + 16;
  const float d = load_half(in + 80), m = load_half(in + 82);
  for (std::size_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(scales[group] & 15), least = m * static_cast<float>(scales[group] >> 4);
    const Byte* from = codes + group / 8 * 32 + group % 2 * 16;
    const std::size_t shift = group / 2 % 4 * 2;
    for (int i = 0; i < 16; ++i) out[group * 16 + i] = scale * static_cast<float>(from[i] >> shift & 3) - least;
  }
}

void expand_q3_k(const Byte* __restrict in, float* __restrict out) noexcept {
  const Byte *high = in, *codes = in + 32, *scales = in + 96;
  const float d = load_half(in + 108);
  for (std::size_t group = 0; group < 16; ++group) {
    // Six bits a scale: four in the nibbles of eight bytes, two in the pairs of four more.
    const int low_bits = scales[group % 8] >> (group / 8 * 4) & 15,
              high_bits = scales[8 + group % 4] >> (group / 4 * 2) & 3;
    const float scale = d * static_cast<float>((low_bits | high_bits << 4) - 32);
    const Byte* from = codes + group / 8 * 32 + group % 2 * 16;
    const Byte* bits = high + group % 2 * 16;
    const std::size_t shift = group / 2 % 4 * 2, bit = group / 2;
    // The third bit is stored inverted: where it is 0, 4 is taken off.
    for (int i = 0; i < 16; ++i)
      out[group * 16 + i] = scale * static_cast<float>((from[i] >> shift & 3) - ((bits[i] >> bit & 1) ^ 1) * 4);
  }
}

/// Scale and minimum of sub-block `group` of q4_k and q5_k, six bits each in twelve bytes: those of the first four
/// groups in the low bits of bytes 0 to 7, those of the last four in the nibbles of bytes 8 to 11 and the two top bits
/// of bytes 0 to 7.
struct ScaleMin {
  int scale, least;
};
ScaleMin scale_min(const Byte* packed, std::size_t group) noexcept {
  if (group < 4) return {packed[group] & 63, packed[group + 4] & 63};
  const Byte both = packed[group + 4];
  return {(both & 15) | (packed[group - 4] >> 2 & 48), (both >> 4) | (packed[group] >> 2 & 48)};
}

void expand_q4_k(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in), m = load_half(in + 2);
  const Byte *packed = in + 4, *codes = in + 16;
  for (std::size_t group = 0; group < 8; ++group) {
    const auto [scale_code, least_code] = scale_min(packed, group);
    const float scale = d * static_cast<float>(scale_code), least = m * static_cast<float>(least_code);
    const Byte* from = codes + group / 2 * 32;
    const std::size_t shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) out[group * 32 + i] = scale * static_cast<float>(from[i] >> shift & 15) - least;
  }
}

void expand_q5_k(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in), m = load_half(in + 2);
  const Byte *packed = in + 4, *high = in + 16, *codes = in + 48;
  for (std::size_t group = 0; group < 8; ++group) {
    const auto [scale_code, least_code] = scale_min(packed, group);
    const float scale = d * static_cast<float>(scale_code), least = m * static_cast<float>(least_code);
    const Byte* from = codes + group / 2 * 32;
    const std::size_t shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i)
      out[group * 32 + i] = scale * static_cast<float>((from[i] >> shift & 15) | (high[i] >> group & 1) << 4) - least;
  }
}

void expand_q6_k(const Byte* __restrict in, float* __restrict out) noexcept {
  const Byte *low = in, *high = in + 128, *scales = in + 192;
  const float d = load_half(in + 208);
  for (std::size_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(static_cast<std::int8_t>(scales[group]));
    const std::size_t half = group / 8, part = group / 2 % 4;  // 128 elements a half, 32 a part
    const Byte* from = low + half * 64 + part % 2 * 32 + group % 2 * 16;
    const Byte* bits = high + half * 32 + group % 2 * 16;
    const std::size_t shift = part / 2 * 4, high_shift = part * 2;
    for (int i = 0; i < 16; ++i)
      out[group * 16 + i] =
          scale * static_cast<float>(((from[i] >> shift & 15) | (bits[i] >> high_shift & 3) << 4) - 32);
  }
}

// The ternary types: 256 elements of -1, 0 or 1 (two bits also hold 2).

// A byte holds five base-3 digits as a fraction: byte * 3^n mod 256, times 3 and over 256, is digit n from the top.
// `bytes` bytes give their first digits, then their second, ...
template <int bytes, int digits>
void expand_digits(const Byte* __restrict in, float d, float* __restrict out) noexcept {
  constexpr std::array<Byte, 5> powers{1, 3, 9, 27, 81};
  for (std::size_t digit = 0; digit < digits; ++digit)
    for (int i = 0; i < bytes; ++i) {
      const auto fraction = static_cast<Byte>(in[i] * powers[digit]);
      out[digit * bytes + i] = d * static_cast<float>((fraction * 3 >> 8) - 1);
    }
}

void expand_tq1_0(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in + 52);
  expand_digits<32, 5>(in, d, out);
  expand_digits<16, 5>(in + 32, d, out + 160);
  expand_digits<4, 4>(in + 48, d, out + 240);
}

void expand_tq2_0(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in + 64);
  for (std::size_t group = 0; group < 8; ++group) {
    const Byte* codes = in + group / 4 * 32;
    const std::size_t shift = group % 4 * 2;
    for (int i = 0; i < 32; ++i) out[group * 32 + i] = d * static_cast<float>((codes[i] >> shift & 3) - 1);
  }
}

}  // namespace

Expand expansion_of_uniform(StorageType type) noexcept {
  switch (type) {
    case StorageType::q4_0: return expand_blocks<32, 18, expand_q4_0>;
    case StorageType::q4_1: return expand_blocks<32, 20, expand_q4_1>;
    case StorageType::q5_0: return expand_blocks<32, 22, expand_q5_0>;
    case StorageType::q5_1: return expand_blocks<32, 24, expand_q5_1>;
    case StorageType::q8_0: return expand_blocks<32, 34, expand_q8_0>;
    case StorageType::q2_k: return expand_blocks<256, 84, expand_q2_k>;
    case StorageType::q3_k: return expand_blocks<256, 110, expand_q3_k>;
    case StorageType::q4_k: return expand_blocks<256, 144, expand_q4_k>;
    case StorageType::q5_k: return expand_blocks<256, 176, expand_q5_k>;
    case StorageType::q6_k: return expand_blocks<256, 210, expand_q6_k>;
    case StorageType::tq1_0: return expand_blocks<256, 54, expand_tq1_0>;
    case StorageType::tq2_0: return expand_blocks<256, 66, expand_tq2_0>;
    default: return nullptr;
  }
}

}  // namespace lamella::io
