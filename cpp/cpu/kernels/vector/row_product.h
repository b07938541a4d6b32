// Products of a few queries with the keys of one KV block: rows that lie as tokens left them, contiguous along the
// inputs. (Weights are packed in panels and have kernels of their own: panel_product.h.)
//
// Sums run lane-parallel along the inputs and end in a fixed tree over the lanes. What an output sees does not depend on
// how many queries or keys share its register tile.
#pragma once

#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Inputs that one step of the micro-kernel takes.
template <typename T>
constexpr int step_inputs = lanes;
template <>
constexpr int step_inputs<Bf16> = 2 * lanes;

template <int Keys, int Queries>
struct Sums {
  F32 of[Keys][Queries];
};

template <int Keys, int Queries, typename T>
LAMELLA_INLINE void multiply_step(Sums<Keys, Queries>& sums, const T* k, std::int64_t k_stride, const T* q,
                                  std::int64_t q_stride) {
  F32 keys[Keys];
#pragma GCC unroll 8
  for (int o = 0; o < Keys; ++o) keys[o] = load(k + o * k_stride);
#pragma GCC unroll 8
  for (int t = 0; t < Queries; ++t) {
    const F32 value = load(q + t * q_stride);
#pragma GCC unroll 8
    for (int o = 0; o < Keys; ++o) sums.of[o][t] = multiply_add(keys[o], value, sums.of[o][t]);
  }
}

/// Two bf16 a lane: the even inputs, moved up, then the odd ones, masked. Half the widening work of loading them in
/// order.
template <int Keys, int Queries>
LAMELLA_INLINE void multiply_step(Sums<Keys, Queries>& sums, const Bf16* k, std::int64_t k_stride, const Bf16* q,
                                  std::int64_t q_stride) {
  U32 keys[Keys], values[Queries];
#pragma GCC unroll 8
  for (int o = 0; o < Keys; ++o) keys[o] = load_bits<U32>(k + o * k_stride);
#pragma GCC unroll 8
  for (int t = 0; t < Queries; ++t) {
    values[t] = load_bits<U32>(q + t * q_stride);
#pragma GCC unroll 8
    for (int o = 0; o < Keys; ++o)
      sums.of[o][t] = multiply_add((F32)(keys[o] << 16), (F32)(values[t] << 16), sums.of[o][t]);
  }
#pragma GCC unroll 8
  for (int t = 0; t < Queries; ++t) {
#pragma GCC unroll 8
    for (int o = 0; o < Keys; ++o)
      sums.of[o][t] = multiply_add((F32)(keys[o] & 0xffff0000u), (F32)(values[t] & 0xffff0000u), sums.of[o][t]);
  }
}

/// The last inputs of rows that do not end with a whole step, padded with zeros.
template <int Keys, int Queries, typename T>
[[gnu::noinline]] void multiply_tail(Sums<Keys, Queries>& sums, const T* k, std::int64_t k_stride, const T* q,
                                     std::int64_t q_stride, std::int64_t inputs) {
  constexpr int step = step_inputs<T>;
  T keys[Keys][step] = {}, values[Queries][step] = {};
  for (std::int64_t i = 0; i < inputs; ++i) {
    for (int o = 0; o < Keys; ++o) keys[o][i] = k[o * k_stride + i];
    for (int t = 0; t < Queries; ++t) values[t][i] = q[t * q_stride + i];
  }
  multiply_step(sums, keys[0], step, values[0], step);
}

/// y[t][o] = q[t] . k[o] for `Queries` rows of q and `Keys` rows of k, all contiguous and `inputs` long.
template <int Keys, int Queries, typename T>
[[gnu::noinline]] void multiply_keys(const T* q, const T* k, std::int64_t inputs, float* y, std::int64_t y_stride) {
  constexpr int step = step_inputs<T>;
  Sums<Keys, Queries> sums = {};
  std::int64_t i = 0;
  for (; i + step <= inputs; i += step) multiply_step(sums, k + i, inputs, q + i, inputs);
  if (i < inputs) {
    Sums<Keys, Queries> in_memory = sums;  // a copy, so that the sums of the loop above keep to their registers
    multiply_tail(in_memory, k + i, inputs, q + i, inputs, inputs - i);
    sums = in_memory;
  }
#pragma GCC unroll 8
  for (int t = 0; t < Queries; ++t) {
    if constexpr (Keys == 4) {
      sum_lanes(sums.of[0][t], sums.of[1][t], sums.of[2][t], sums.of[3][t], y + t * y_stride);
    } else {
      for (int o = 0; o < Keys; ++o) y[t * y_stride + o] = sum_lanes(sums.of[o][t]);
    }
  }
}

/// y[t][o] = q[t] . k[o]; rows of q and k contiguous, rows of y `y_stride` apart.
template <typename T>
LAMELLA_INLINE void multiply_rows(const T* q, std::int64_t queries, const T* k, std::int64_t keys, std::int64_t inputs,
                                  float* y, std::int64_t y_stride) {
  for (std::int64_t t = 0; t < queries; t += tile_queries)
    with_count<tile_queries>(queries - t, [&](auto count) LAMELLA_BODY {
      constexpr int n = decltype(count)::value;
      std::int64_t o = 0;
      for (; o + 4 <= keys; o += 4)
        multiply_keys<4, n>(q + t * inputs, k + o * inputs, inputs, y + t * y_stride + o, y_stride);
      for (; o < keys; ++o) multiply_keys<1, n>(q + t * inputs, k + o * inputs, inputs, y + t * y_stride + o, y_stride);
    });
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
