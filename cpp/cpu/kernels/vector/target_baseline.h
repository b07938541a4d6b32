// What every processor of the architecture has: 16-byte vectors (SSE2, NEON), 16 or more registers, multiply and add
// apart, so that each product rounds. Exactness is per kernel set: these bits differ from those of the sets with fused
// multiply-add.
#pragma once

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

using F32 = float __attribute__((vector_size(16)));

constexpr const char* set_name = "baseline";
constexpr int tile_outputs = 4;  // rows of weights and tokens that share a register tile
constexpr int tile_tokens = 2;    // 4 outputs x 2 tokens: 8 sums, 4 weights and 1 activation in 16 registers
constexpr int value_vectors = 2;  // attention: 4 queries x 2 vectors of a head
constexpr int peak_chains = 12;

[[gnu::always_inline]] inline F32 multiply_add(F32 a, F32 b, F32 c) { return a * b + c; }

/// The sums of a, b, c and d over their lanes: (0+2) + (1+3).
[[gnu::always_inline]] inline void sum_lanes(F32 a, F32 b, F32 c, F32 d, float* sums) {
  const F32 ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
  const F32 cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
  const F32 abcd = __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
  __builtin_memcpy(sums, &abcd, sizeof abcd);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
