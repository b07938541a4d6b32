// Dot products of bytes for sets without an instruction that sums them in 32 bits. Unsigned 8-bit weight codes and signed
// activation codes meet as pairs of 16 bits: bytes times bytes (vpmaddubsw) would saturate. 4-bit codes meet bytes where the
// set multiplies them, and 32 inputs of a lane are summed in 16 bits before they are widened (int4_a8 on AVX-512 without VNNI,
// 8 and 32 tokens: 4.0 and 16.0 ms as pairs of 16 bits, 2.0 and 8.2 this way; linear-kernels-zen4-2026-11.md).
#pragma once

#include "cpu/kernels/vector/register_tiles.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

constexpr bool sums_in_halves = multiplies_bytes;
/// Words that four activation codes take beside weights of so many bits: one as they stand, or two, inputs 0 and 2 and then
/// inputs 1 and 3.
template <int Bits>
constexpr int quad_words = Bits == 4 && sums_in_halves ? 1 : 2;
/// bf16 pairs have no instruction here: they are widened.
constexpr bool multiplies_bf16_pairs = false;
constexpr RegisterTiles code_pairs_tiles = {}, grouped_code_pairs_tiles = {};

LAMELLA_INLINE void pack_quad(const std::int8_t* codes, std::int32_t* words) {
  for (int half = 0; half < 2; ++half)
    words[half] = static_cast<std::int32_t>((static_cast<std::uint32_t>(std::int32_t{codes[half]}) & 0xffffu) |
                                            static_cast<std::uint32_t>(std::int32_t{codes[half + 2]}) << 16);
}

/// sum + the products of each lane's four bytes with the four activation codes, whose words stand `Stride` apart.
template <int Stride>
LAMELLA_INLINE I32 add_dots(I32 sum, U32 bytes, const std::int32_t* quad) {
  sum = add_pair_products(bytes & 0x00ff00ffu, (U32)(quad[0] - I32{}), sum);
  return add_pair_products(bytes >> 8 & 0x00ff00ffu, (U32)(quad[Stride] - I32{}), sum);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
