// What every processor of the architecture has: 16-byte vectors (SSE2, NEON), 16 or more registers, multiply and add
// apart, so that each product rounds. Exactness is per kernel set: these bits differ from those of the sets with fused
// multiply-add.
#pragma once

#include <cstdint>

#include "cpu/kernels/vector/register_tiles.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

using F32 = float __attribute__((vector_size(16)));
using F64 = double __attribute__((vector_size(16)));

// 16 registers. Tiles of weights: sums, words, numbers, one input.
constexpr RegisterTiles plain_tiles = {{4, 2}, {4, 2}};
// Making a number of a code takes five operations: eight tokens share them.
constexpr RegisterTiles decoded_tiles = {{4, 1}, {1, 8}};
constexpr RegisterTiles dots_tiles = {{4, 1}, {2, 3}};
constexpr RegisterTiles grouped_dots_tiles = {{2, 1}, {2, 2}};
constexpr bool multiplies_bytes = false;
constexpr RegisterTiles grouped_halves_tiles = {};
constexpr RegisterTile attention_tile = {4, 2};  // vectors of keys, or of the head, and rows
constexpr int peak_chains = 12;

[[gnu::always_inline]] inline F32 multiply_add(F32 a, F32 b, F32 c) { return a * b + c; }

/// The sums of a, b, c and d over their lanes: (0+2) + (1+3).
[[gnu::always_inline]] inline void sum_lanes(F32 a, F32 b, F32 c, F32 d, float* sums) {
  const F32 ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
  const F32 cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
  const F32 abcd = __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
  __builtin_memcpy(sums, &abcd, sizeof abcd);
}

using Word = std::uint32_t __attribute__((vector_size(16)));
using Halves = std::uint16_t __attribute__((vector_size(8)));

/// Four fp16. A subnormal is a whole number of 2^-24.
[[gnu::always_inline]] inline F32 load_f16(const void* from) {
  Halves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  const Word bits = __builtin_convertvector(halves, Word);
  const Word magnitude = (bits & 0x7fffu) << 13, exponent = magnitude & 0x0f800000u;
  const Word small = (Word)(__builtin_convertvector((bits & 0x3ffu), F32) * 0x1p-24F);
  const Word finite = exponent == 0 ? small : magnitude + (112u << 23);
  return (F32)((exponent == 0x0f800000u ? magnitude | 0x7f800000u : finite) | (bits & 0x8000u) << 16);
}

/// Below 2^-14 an fp16 counts multiples of 2^-24: adding 0.5 leaves that count, rounded to even, in the lowest bits.
[[gnu::always_inline]] inline void store_f16(void* to, F32 v) {
  const Word bits = (Word)v, magnitude = bits & 0x7fffffffu;
  const Word small = (Word)((F32)magnitude + 0.5F) - 0x3f000000u;
  const Word normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  const Word finite = magnitude < 0x38800000u ? small : normal;
  const Word number = magnitude >= 0x477ff000u ? Word{} + 0x7c00u : finite;
  const Word nan = (magnitude >> 13 & 0x3ffu) | 0x7e00u;
  const Halves halves = __builtin_convertvector((v == v ? number : nan) | (bits >> 16 & 0x8000u), Halves);
  __builtin_memcpy(to, &halves, sizeof halves);
}

/// Two floats.
[[gnu::always_inline]] inline F64 load_wide(const float* from) {
  return F64{static_cast<double>(from[0]), static_cast<double>(from[1])};
}

/// c + a.low * b.low + a.high * b.high in every 32-bit lane: pairs of 16 bits, those of `a` 0 to 255, those of `b` signed
/// bytes, so that a product fits 16 bits.
template <typename Bits, typename Int>
[[gnu::always_inline]] inline Int add_pair_products(Bits a, Bits b, Int c) {
  using Pairs = std::int16_t __attribute__((vector_size(16)));
  const Int products = (Int)((Pairs)a * (Pairs)b);
  return c + (products << 16 >> 16) + (products >> 16);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE

// Of this target's vectors.
#include "cpu/kernels/vector/partial_vectors.h"
