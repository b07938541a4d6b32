// AVX2 with FMA: 32-byte vectors, 16 registers.
#pragma once

#include <immintrin.h>

#include "cpu/kernels/vector/register_tiles.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

using F32 = float __attribute__((vector_size(32)));
using F64 = double __attribute__((vector_size(32)));

// 16 registers. Tiles of weights: sums, words, numbers, one input.
constexpr RegisterTiles plain_tiles = {{8, 1}, {2, 5}};
// Making a number of a code takes five operations: eight tokens share them.
constexpr RegisterTiles decoded_tiles = {{4, 1}, {1, 8}};
// With four tokens one of the eight sums has no register. With three, 16 and more tokens take 8 to 10 % less, 6 and 8 as
// long as with four, 4 tokens 10 % more (Zen 4, int8; linear-kernels-zen4-2026-11.md).
constexpr RegisterTiles dots_tiles = {{4, 1}, {2, 3}};
constexpr RegisterTiles grouped_dots_tiles = {{4, 1}, {2, 2}};
constexpr RegisterTiles grouped_halves_tiles = grouped_dots_tiles;
constexpr RegisterTile attention_tile = {2, 4};  // vectors of keys, or of the head, and rows
constexpr int peak_chains = 12;

/// Explicitly fused, instead of left to the compiler's contraction: the bits are a property of the source.
[[gnu::always_inline]] inline F32 multiply_add(F32 a, F32 b, F32 c) {
  return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

[[gnu::always_inline]] inline F32 load_f16(const void* from) {
  return (F32)_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}
[[gnu::always_inline]] inline void store_f16(void* to, F32 v) {
  _mm_storeu_si128(static_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
[[gnu::always_inline]] inline F64 load_wide(const float* from) { return (F64)_mm256_cvtps_pd(_mm_loadu_ps(from)); }

/// c + a.low * b.low + a.high * b.high in every 32-bit lane, pairs of signed 16 bits.
template <typename Bits, typename Int>
[[gnu::always_inline]] inline Int add_pair_products(Bits a, Bits b, Int c) {
  return c + (Int)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}

constexpr bool multiplies_bytes = true;
/// a0 * b0 + a1 * b1 in every 16-bit lane, bytes of `a` unsigned and of `b` signed; saturates.
template <typename Bits>
[[gnu::always_inline]] inline Bits byte_products(Bits a, Bits b) {
  return (Bits)_mm256_maddubs_epi16((__m256i)a, (__m256i)b);
}

/// The sums of a, b, c and d over their lanes: i+4, then i+2, then i+1.
[[gnu::always_inline]] inline void sum_lanes(F32 a, F32 b, F32 c, F32 d, float* sums) {
  const F32 ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
                 __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  const F32 cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 8, 9, 10, 11) +
                 __builtin_shufflevector(c, d, 4, 5, 6, 7, 12, 13, 14, 15);
  const F32 acbd = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                   __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
  const F32 all = acbd + __builtin_shufflevector(acbd, acbd, 1, 0, 3, 2, 5, 4, 7, 6);
  const F32 ordered = __builtin_shufflevector(all, all, 0, 4, 2, 6, 0, 4, 2, 6);
  __builtin_memcpy(sums, &ordered, 4 * sizeof(float));
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE

// Of this target's vectors.
#include "cpu/kernels/vector/partial_vectors.h"
