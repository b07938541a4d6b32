// Vectors of one instruction set in the compiler's own vector types. A target header (target_*.h) comes first: it gives
// F32, F64, the tile sizes, multiply_add, sum_lanes, load_wide (floats as F64), and what the instruction set has for
// fp16 and for products of integers. Everything here has internal linkage, and nothing of the standard
// library is called, so that no function compiled for AVX-512 can become the linker's pick for code that runs on every
// processor.
#pragma once

#include <cstddef>
#include <cstdint>

#define LAMELLA_INLINE [[gnu::always_inline]] inline

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

constexpr int lanes = sizeof(F32) / sizeof(float);
using I32 = std::int32_t __attribute__((vector_size(sizeof(F32))));
using U32 = std::uint32_t __attribute__((vector_size(sizeof(F32))));
using U16 = std::uint16_t __attribute__((vector_size(sizeof(F32) / 2)));
using U16Pairs = std::uint16_t __attribute__((vector_size(sizeof(F32))));  // two a lane

/// The upper half of an fp32.
struct Bf16 {
  std::uint16_t bits;
};
struct Fp16 {
  std::uint16_t bits;
};
template <typename T>
constexpr bool is_bf16 = false;
template <>
constexpr bool is_bf16<Bf16> = true;

LAMELLA_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
LAMELLA_INLINE std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
LAMELLA_INLINE std::int64_t round_up(std::int64_t a, std::int64_t unit) { return (a + unit - 1) / unit * unit; }

LAMELLA_INLINE F32 splat(float x) { return x - F32{}; }  // x - 0 keeps the sign of a zero
LAMELLA_INLINE F32 absolute(F32 x) { return (F32)((U32)x & 0x7fffffffu); }
LAMELLA_INLINE U32 sign_bits(F32 x) { return (U32)x & 0x80000000u; }

template <typename V>
LAMELLA_INLINE V load_bits(const void* from) {  // no alignment asked
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

LAMELLA_INLINE F32 load(const float* from) { return load_bits<F32>(from); }
LAMELLA_INLINE F32 load(const Bf16* from) { return (F32)(__builtin_convertvector(load_bits<U16>(from), U32) << 16); }

LAMELLA_INLINE F32 load(const Fp16* from) { return load_f16(from); }
/// Rounds to the nearest fp16, ties to even; beyond 65504 to infinity; a NaN stays one.
LAMELLA_INLINE void store(Fp16* to, F32 v) { store_f16(to, v); }

LAMELLA_INLINE void store(float* to, F32 v) { __builtin_memcpy(to, &v, sizeof v); }
/// Rounds to the nearest bf16, ties to even; a NaN stays one.
LAMELLA_INLINE void store(Bf16* to, F32 v) {
  const U32 bits = (U32)v;
  const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32 quiet = (bits >> 16) | 0x40u;
  const U16 narrow = __builtin_convertvector(v == v ? rounded : quiet, U16);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}

/// The first `count` lanes from memory, zeros behind them.
template <typename T>
LAMELLA_INLINE F32 load(const T* from, int count) {
  if (count == lanes) return load(from);
  T padded[lanes];
  load_first(padded, from, count);
  return load(padded);
}
template <typename T>
LAMELLA_INLINE void store(T* to, F32 v, int count) {
  if (count == lanes) return store(to, v);
  T padded[lanes];
  store(padded, v);
  store_first(to, padded, count);
}

/// The lowest byte of each of the first `count` lanes.
LAMELLA_INLINE void store_bytes(std::int8_t* to, I32 v, int count) {
  using Bytes = std::int8_t __attribute__((vector_size(lanes)));
  const Bytes bytes = __builtin_convertvector(v, Bytes);
  if (count == lanes) __builtin_memcpy(to, &bytes, sizeof bytes);
  else store_first(to, reinterpret_cast<const std::int8_t*>(&bytes), count);
}

/// `v` in the first `count` lanes, `other` behind them.
LAMELLA_INLINE F32 first_lanes(F32 v, int count, F32 other) {
  if (count == lanes) return v;
  I32 index;
  for (int i = 0; i < lanes; ++i) index[i] = i;
  return index < count ? v : other;
}

LAMELLA_INLINE float sum_lanes(F32 v) {
  float sums[4];
  sum_lanes(v, v, v, v, sums);
  return sums[0];
}
LAMELLA_INLINE float max_lanes(F32 v) {
  float halves[lanes];  // a tree: one after another they would take four times as long
  __builtin_memcpy(halves, &v, sizeof v);
#pragma GCC unroll 4
  for (int n = lanes / 2; n > 0; n /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) halves[i] = halves[i + n] > halves[i] ? halves[i + n] : halves[i];
  return halves[0];
}
LAMELLA_INLINE F32 larger_lanes(F32 a, F32 b) { return a > b ? a : b; }

/// Calls body(i, count) for the vectors of a row: `count` is `lanes`, but less in the last one of an odd width.
template <typename Body>
LAMELLA_INLINE void each_vector(std::int64_t width, Body body) {
  std::int64_t i = 0;
  for (; i + lanes <= width; i += lanes) body(i, lanes);
  if (i < width) body(i, static_cast<int>(width - i));
}
// Bodies are written as `[&](std::int64_t i, int count) LAMELLA_BODY { ... }`: inlined at both calls, so that the whole
// vectors lose the test of `count`.
#define LAMELLA_BODY __attribute__((always_inline))

/// Stores a row of fp32 results in the type of the destination.
template <typename T>
LAMELLA_INLINE void store_row(T* to, const float* row, std::int64_t width) {
  each_vector(width, [&](std::int64_t i, int count) LAMELLA_BODY { store(to + i, load(row + i, count), count); });
}

/// A number known to the compiler, handed to a generic lambda.
template <int N>
struct Constant {
  static constexpr int value = N;
};

/// Calls body(Constant<n>) for n in 1 to Most; with Most for all that is more.
template <int Most, typename Body>
LAMELLA_INLINE void with_count(std::int64_t n, Body body) {
  if constexpr (Most > 1) {
    if (n < Most) return with_count<Most - 1>(n, body);
  }
  body(Constant<Most>{});
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
