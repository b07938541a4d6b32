// Types of four bits a code, each code one of sixteen values.
#include <array>
#include <bit>

#include "io/expand_blocks.h"

namespace lamella::io {
namespace {

using Values = std::array<float, 16>;

constexpr Values iq4_values{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Twice the values of E2M1 (a sign, two exponent bits, one of mantissa), and 0 for its -0; scales are halved for it.
constexpr Values e2m1_doubled{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// 2 * count elements: low nibbles are the first half, high nibbles the other.
template <int count>
void expand_nibbles(const Byte* __restrict codes, const Values& values, float scale, float* __restrict out) noexcept {
  for (int i = 0; i < count; ++i) {
    out[i] = scale * values[codes[i] & 15];
    out[i + count] = scale * values[codes[i] >> 4];
  }
}

void expand_iq4_nl(const Byte* __restrict in, float* __restrict out) noexcept {
  expand_nibbles<16>(in + 2, iq4_values, load_half(in), out);
}

// Six bits a scale: two in a 16-bit word, four in nibbles.
void expand_iq4_xs(const Byte* __restrict in, float* __restrict out) noexcept {
  const float d = load_half(in);
  const auto high = load<std::uint16_t>(in + 2);
  const Byte *low = in + 4, *codes = in + 8;
  for (std::size_t group = 0; group < 8; ++group) {
    const int scale = (nibble(low, group) | (high >> 2 * group & 3) << 4) - 32;
    expand_nibbles<16>(codes + group * 16, iq4_values, d * static_cast<float>(scale), out + group * 32);
  }
}

// Half of 2^(bits - 127). The two least are subnormal: these blocks alone depend on the processor's flush-to-zero mode.
float half_of_e8m0(Byte bits) noexcept {
  const std::uint32_t small = bits == 0 ? 0x00200000 : 0x00400000;
  return std::bit_cast<float>(bits < 2 ? small : (bits - 1u) << 23);
}

void expand_mxfp4(const Byte* __restrict in, float* __restrict out) noexcept {
  expand_nibbles<16>(in + 1, e2m1_doubled, half_of_e8m0(*in), out);
}

// E4M3 without a sign; ggml takes the NaN for 0, though not with the top bit set, which it ignores otherwise.
float half_of_ue4m3(Byte bits) noexcept {
  if (bits == 0x7f) return 0;
  const std::uint32_t exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
  return std::bit_cast<float>((exponent + 119) << 23 | mantissa << 20);
}

void expand_nvfp4(const Byte* __restrict in, float* __restrict out) noexcept {
  for (std::size_t group = 0; group < 4; ++group)
    expand_nibbles<8>(in + 4 + group * 8, e2m1_doubled, half_of_ue4m3(in[group]), out + group * 16);
}

}  // namespace

Expand expansion_of_values(StorageType type) noexcept {
  switch (type) {
    case StorageType::iq4_nl: return expand_blocks<32, 18, expand_iq4_nl>;
    case StorageType::iq4_xs: return expand_blocks<256, 136, expand_iq4_xs>;
    case StorageType::mxfp4: return expand_blocks<32, 17, expand_mxfp4>;
    case StorageType::nvfp4: return expand_blocks<64, 36, expand_nvfp4>;
    default: return nullptr;
  }
}

}  // namespace lamella::io
