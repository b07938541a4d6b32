// AVX-512 (F, BW, DQ, VL): 64-byte vectors, 32 registers.
#pragma once

#include <immintrin.h>

#include "cpu/kernels/vector/register_tiles.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

using F32 = float __attribute__((vector_size(64)));
using F64 = double __attribute__((vector_size(64)));

// 32 registers. Tiles of weights: sums, words, numbers, one input.
constexpr RegisterTiles plain_tiles = {{4, 6}, {4, 6}};
constexpr RegisterTiles decoded_tiles = {{4, 2}, {2, 8}};
constexpr RegisterTiles dots_tiles = {{4, 6}, {4, 6}};
constexpr RegisterTiles grouped_dots_tiles = {{4, 4}, {4, 4}};
constexpr RegisterTiles grouped_halves_tiles = {{4, 3}, {2, 6}};
constexpr RegisterTile attention_tile = {4, 6};  // vectors of keys, or of the head, and rows
constexpr int peak_chains = 24;

/// Explicitly fused, instead of left to the compiler's contraction: the bits are a property of the source.
[[gnu::always_inline]] inline F32 multiply_add(F32 a, F32 b, F32 c) {
  return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

// The masked forms, all lanes on: GCC 12 warns of the others' undefined third operand.
[[gnu::always_inline]] inline F32 load_f16(const void* from) {
  return (F32)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(static_cast<const __m256i*>(from)));
}
[[gnu::always_inline]] inline void store_f16(void* to, F32 v) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
[[gnu::always_inline]] inline F64 load_wide(const float* from) {
  return (F64)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(from));
}

/// The first `count` elements of a vector that is filled up with zeros.
template <typename T>
[[gnu::always_inline]] inline void load_first(T* vector, const T* from, int count) {
  const auto mask = static_cast<__mmask16>((1u << count) - 1u);
  if constexpr (sizeof(T) == 4) _mm512_storeu_si512(vector, _mm512_maskz_loadu_epi32(mask, from));
  else _mm256_storeu_si256(reinterpret_cast<__m256i*>(vector), _mm256_maskz_loadu_epi16(mask, from));
}
/// The first `count` elements of a vector, to memory.
template <typename T>
[[gnu::always_inline]] inline void store_first(T* to, const T* vector, int count) {
  const auto mask = static_cast<__mmask16>((1u << count) - 1u);
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_epi32(to, mask, _mm512_loadu_si512(vector));
  else if constexpr (sizeof(T) == 2)
    _mm256_mask_storeu_epi16(to, mask, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(vector)));
  else _mm_mask_storeu_epi8(to, mask, _mm_loadu_si128(reinterpret_cast<const __m128i*>(vector)));
}

/// c + a.low * b.low + a.high * b.high in every 32-bit lane, pairs of signed 16 bits.
template <typename Bits, typename Int>
[[gnu::always_inline]] inline Int add_pair_products(Bits a, Bits b, Int c) {
  return c + (Int)_mm512_madd_epi16((__m512i)a, (__m512i)b);
}

constexpr bool multiplies_bytes = true;
/// a0 * b0 + a1 * b1 in every 16-bit lane, bytes of `a` unsigned and of `b` signed; saturates.
template <typename Bits>
[[gnu::always_inline]] inline Bits byte_products(Bits a, Bits b) {
  return (Bits)_mm512_maddubs_epi16((__m512i)a, (__m512i)b);
}

/// The sums of a, b, c and d over their lanes: i+8, then i+4, then i+2, then i+1.
[[gnu::always_inline]] inline void sum_lanes(F32 a, F32 b, F32 c, F32 d, float* sums) {
  const F32 ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                 __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  const F32 cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                 __builtin_shufflevector(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  const F32 abcd = __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                   __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  const F32 pairs = abcd + __builtin_shufflevector(abcd, abcd, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  const F32 all = pairs + __builtin_shufflevector(pairs, pairs, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  const F32 ordered = __builtin_shufflevector(all, all, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  __builtin_memcpy(sums, &ordered, 4 * sizeof(float));
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
