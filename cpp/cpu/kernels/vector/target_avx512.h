// AVX-512 (F, BW, DQ, VL): 64-byte vectors, 32 registers.
#pragma once

#include <immintrin.h>

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

using F32 = float __attribute__((vector_size(64)));

constexpr const char* set_name = "avx512";
constexpr int tile_outputs = 4;  // rows of weights and tokens that share a register tile
constexpr int tile_tokens = 4;    // 4 outputs x 4 tokens: 16 sums, 8 weights and 1 activation in 32 registers
constexpr int value_vectors = 4;  // attention: 4 queries x 4 vectors of a head
constexpr int peak_chains = 24;

/// Explicitly fused, instead of left to the compiler's contraction: the bits are a property of the source.
[[gnu::always_inline]] inline F32 multiply_add(F32 a, F32 b, F32 c) {
  return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
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
