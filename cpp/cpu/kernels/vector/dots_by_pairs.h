// Dot products of bytes for sets without an instruction for them: unsigned weight codes and signed activation codes meet
// as pairs of 16 bits. (Bytes times bytes, vpmaddubsw, would saturate.)
#pragma once

#include "cpu/kernels/vector/register_tiles.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Four activation codes take two words: inputs 0 and 2, then inputs 1 and 3.
constexpr int quad_words = 2;
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
