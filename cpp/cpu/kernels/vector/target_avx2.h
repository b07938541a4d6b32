// AVX2 with FMA: 32-byte vectors, 16 registers.
#pragma once

#include <immintrin.h>

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

using F32 = float __attribute__((vector_size(32)));

constexpr const char* set_name = "avx2";
constexpr int tile_outputs = 4;  // rows of weights and tokens that share a register tile
constexpr int tile_tokens = 2;    // 4 outputs x 2 tokens: 8 sums, 4 weights and 1 activation in 16 registers
constexpr int value_vectors = 2;  // attention: 4 queries x 2 vectors of a head
constexpr int peak_chains = 12;

/// Explicitly fused, instead of left to the compiler's contraction: the bits are a property of the source.
[[gnu::always_inline]] inline F32 multiply_add(F32 a, F32 b, F32 c) {
  return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
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
