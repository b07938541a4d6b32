// Dot products with the instructions of AVX-512 VNNI (unsigned weight codes, signed activation codes, exact in int32) and
// AVX-512 BF16 (two products a lane, summed in fp32).
#pragma once

#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Four activation codes are one word.
constexpr int quad_words = 1;
constexpr bool multiplies_bf16_pairs = true;

LAMELLA_INLINE void pack_quad(const std::int32_t* codes, std::int32_t* words) {
  std::uint32_t word = 0;
  for (int i = 0; i < 4; ++i) word |= (static_cast<std::uint32_t>(codes[i]) & 0xffu) << 8 * i;
  words[0] = static_cast<std::int32_t>(word);
}

/// sum + the products of each lane's four bytes with the four activation codes.
LAMELLA_INLINE I32 add_dots(I32 sum, U32 bytes, const std::int32_t* quad) {
  return (I32)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes, (__m512i)(quad[0] - I32{}));
}

/// sum + the products of each lane's two bf16 with the two of `pair`.
LAMELLA_INLINE F32 add_pair_of_bf16(F32 sum, U32 weights, std::uint32_t pair) {
  return (F32)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)(pair - U32{}));
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
