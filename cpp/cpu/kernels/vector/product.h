// The product of a tile of tokens with rows of a weight matrix: the one dot product that every linear, fused or not,
// and the scores of attention are made of.
//
// Sums run lane-parallel along the inputs and end in a fixed tree over the lanes. What an output sees (one fused
// multiply-add per vector of inputs, in order, then the tree) does not depend on how many tokens or outputs share its
// register tile, nor on the cutting into chunks, at whose ends the fp32 sums are stored and loaded unchanged.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// At most this many tokens go through one call of multiply().
constexpr std::int64_t product_tokens = fused_token_tile;
/// Of each row this many bytes are used for all tokens before the next ones: 4 rows x 4 KiB stay in the first-level
/// cache.
constexpr std::int64_t chunk_bytes = 4096;
/// How far ahead of its use a line is asked for where every row is read once.
constexpr std::int64_t prefetch_bytes = 2048;
constexpr int line_bytes = 64;

/// x: [tokens][inputs], rows `x_stride` elements apart; weight: [outputs][inputs], rows inputs elements apart.
template <typename T>
struct Product {
  const T* x;
  std::int64_t x_stride;
  std::int64_t inputs;
};

/// Inputs that one step of the micro-kernel takes.
template <typename T>
constexpr int step_inputs = lanes;
template <>
constexpr int step_inputs<Bf16> = 2 * lanes;

template <int Outputs, int Tokens>
struct Sums {
  F32 of[Outputs][Tokens];
};

template <int Outputs, int Tokens>
LAMELLA_INLINE void multiply_step(Sums<Outputs, Tokens>& sums, const float* w, std::int64_t w_stride, const float* x,
                                  std::int64_t x_stride) {
  F32 weights[Outputs];
#pragma GCC unroll 8
  for (int o = 0; o < Outputs; ++o) weights[o] = load(w + o * w_stride);
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) {
    const F32 value = load(x + t * x_stride);
#pragma GCC unroll 8
    for (int o = 0; o < Outputs; ++o) sums.of[o][t] = multiply_add(weights[o], value, sums.of[o][t]);
  }
}

/// Two bf16 a lane: the even inputs, moved up, then the odd ones, masked. Half the widening work of loading them in
/// order.
template <int Outputs, int Tokens>
LAMELLA_INLINE void multiply_step(Sums<Outputs, Tokens>& sums, const Bf16* w, std::int64_t w_stride, const Bf16* x,
                                  std::int64_t x_stride) {
  U32 weights[Outputs], values[Tokens];
#pragma GCC unroll 8
  for (int o = 0; o < Outputs; ++o) weights[o] = load_bits<U32>(w + o * w_stride);
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) {
    values[t] = load_bits<U32>(x + t * x_stride);
#pragma GCC unroll 8
    for (int o = 0; o < Outputs; ++o)
      sums.of[o][t] = multiply_add((F32)(weights[o] << 16), (F32)(values[t] << 16), sums.of[o][t]);
  }
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) {
#pragma GCC unroll 8
    for (int o = 0; o < Outputs; ++o)
      sums.of[o][t] = multiply_add((F32)(weights[o] & 0xffff0000u), (F32)(values[t] & 0xffff0000u), sums.of[o][t]);
  }
}

/// The last inputs of rows that do not end with a whole step, padded with zeros.
template <int Outputs, int Tokens, typename T>
[[gnu::noinline]] void multiply_tail(Sums<Outputs, Tokens>& sums, const T* w, std::int64_t w_stride, const T* x,
                                     std::int64_t x_stride, std::int64_t inputs) {
  constexpr int step = step_inputs<T>;
  T weights[Outputs][step] = {}, values[Tokens][step] = {};
  for (std::int64_t i = 0; i < inputs; ++i) {
    for (int o = 0; o < Outputs; ++o) weights[o][i] = w[o * w_stride + i];
    for (int t = 0; t < Tokens; ++t) values[t][i] = x[t * x_stride + i];
  }
  multiply_step(sums, weights[0], step, values[0], step);
}

/// One register tile over one chunk of inputs. Meanwhile it asks for the lines of `Prefetched` rows from `prefetch` on,
/// which are used next: weights are read once, and rows are often exactly a page long, where the hardware's prefetchers
/// stop.
template <int Prefetched, int Outputs, int Tokens, typename T>
LAMELLA_INLINE void multiply_chunk(Sums<Outputs, Tokens>& sums, const T* w, std::int64_t w_stride, const T* x,
                                   std::int64_t x_stride, std::int64_t inputs, const T* prefetch) {
  constexpr int step = step_inputs<T>, line = line_bytes / static_cast<int>(sizeof(T));
  std::int64_t i = 0;
  for (; i + line <= inputs; i += line) {
#pragma GCC unroll 8
    for (int row = 0; row < Prefetched; ++row) __builtin_prefetch(prefetch + row * w_stride + i);
#pragma GCC unroll 8
    for (int s = 0; s < line; s += step) multiply_step(sums, w + i + s, w_stride, x + i + s, x_stride);
  }
  for (; i + step <= inputs; i += step) multiply_step(sums, w + i, w_stride, x + i, x_stride);
  if (i < inputs) {
    Sums<Outputs, Tokens> in_memory = sums;  // a copy, so that the sums of the loop above keep to their registers
    multiply_tail(in_memory, w + i, w_stride, x + i, x_stride, inputs - i);
    sums = in_memory;
  }
}

template <int Outputs, int Tokens>
LAMELLA_INLINE void finish(const Sums<Outputs, Tokens>& sums, float* y, std::int64_t y_stride) {
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) {
    if constexpr (Outputs % 4 == 0) {
#pragma GCC unroll 8
      for (int o = 0; o < Outputs; o += 4)
        sum_lanes(sums.of[o][t], sums.of[o + 1][t], sums.of[o + 2][t], sums.of[o + 3][t], y + t * y_stride + o);
    } else {
      for (int o = 0; o < Outputs; ++o) y[t * y_stride + o] = sum_lanes(sums.of[o][t]);
    }
  }
}

/// `Outputs` rows of weights with one register tile of tokens: bound by memory, so nothing but the rows goes by, and
/// the lines asked for lie `prefetch_bytes` ahead in each row and then in the rows after these.
template <int Outputs, int Tokens, typename T>
[[gnu::noinline]] void multiply_rows_once(const Product<T>& p, const T* w, float* y, std::int64_t y_stride,
                                          const T* next) {
  constexpr std::int64_t ahead = prefetch_bytes / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t split = larger(0, p.inputs - ahead) / ahead * ahead;
  Sums<Outputs, Tokens> sums = {};
  multiply_chunk<Outputs>(sums, w, p.inputs, p.x, p.x_stride, split, w + ahead);
  multiply_chunk<Outputs>(sums, w + split, p.inputs, p.x + split, p.x_stride, p.inputs - split, next);
  finish(sums, y, y_stride);
}

/// `Outputs` rows of weights with all tokens of the tile: chunk after chunk, in each the tokens by register tiles.
template <int Outputs, typename T>
[[gnu::noinline]] void multiply_rows(const Product<T>& p, const T* weight, std::int64_t tokens, float* y,
                                     std::int64_t y_stride, const T* next) {
  constexpr std::int64_t chunk = chunk_bytes / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t rows_a_tile =
      tokens > std::int64_t{Outputs - 1} * tile_tokens ? 1 : (Outputs + 1) / 2;  // there are two tiles at least
  F32 partial[product_tokens * Outputs];
  for (std::int64_t begin = 0; begin < p.inputs; begin += chunk) {
    const bool first = begin == 0, last = begin + chunk >= p.inputs;
    const std::int64_t inputs = last ? p.inputs - begin : chunk;
    const T* w = weight + begin;
    const T* following = last ? next : w + chunk;
    for (std::int64_t t = 0; t < tokens; t += tile_tokens) {
      with_constant(smaller(tile_tokens, tokens - t), [&](auto count) LAMELLA_BODY {
        constexpr int n = decltype(count)::value;
        if constexpr (n <= tile_tokens) {
          const T* x = p.x + t * p.x_stride + begin;
          F32* saved = partial + t * Outputs;
          Sums<Outputs, n> sums = {};
          if (!first) __builtin_memcpy(&sums, saved, sizeof sums);
          // Every tile asks for some rows of the next chunk, so that memory works all the time.
          const std::int64_t row = t / tile_tokens * rows_a_tile;
          const T* prefetch = following + row * p.inputs;
          if (row >= Outputs) multiply_chunk<0>(sums, w, p.inputs, x, p.x_stride, inputs, prefetch);
          else if (rows_a_tile == 1) multiply_chunk<1>(sums, w, p.inputs, x, p.x_stride, inputs, prefetch);
          else multiply_chunk<(Outputs + 1) / 2>(sums, w, p.inputs, x, p.x_stride, inputs, prefetch);
          if (last) finish(sums, y + t * y_stride, y_stride);
          else __builtin_memcpy(saved, &sums, sizeof sums);
        }
      });
    }
  }
}

/// `Outputs` rows by the way that suits the number of tokens; both take the same steps for every output.
template <int Outputs, typename T>
LAMELLA_INLINE void multiply_rows_with(const Product<T>& p, const T* weight, std::int64_t tokens, float* y,
                                       std::int64_t y_stride, const T* next) {
  if (tokens > tile_tokens) return multiply_rows<Outputs>(p, weight, tokens, y, y_stride, next);
  with_constant(tokens, [&](auto count) LAMELLA_BODY {
    if constexpr (decltype(count)::value <= tile_tokens)
      multiply_rows_once<Outputs, decltype(count)::value>(p, weight, y, y_stride, next);
  });
}

/// y[t][o] = x[t] . weight[o] for up to product_tokens tokens and any number of outputs, in fp32. `next`: weights that
/// the caller will want afterwards; these very rows where it wants none.
template <typename T>
LAMELLA_INLINE void multiply(const Product<T>& p, const T* weight, std::int64_t tokens, std::int64_t outputs, float* y,
                             std::int64_t y_stride, const T* next) {
  std::int64_t o = 0;
  for (; o + tile_outputs <= outputs; o += tile_outputs) {
    const T* rows = weight + o * p.inputs;
    const T* following = o + tile_outputs < outputs ? rows + tile_outputs * p.inputs : next;
    multiply_rows_with<tile_outputs>(p, rows, tokens, y + o, y_stride, following);
  }
  for (; o < outputs; ++o) multiply_rows_with<1>(p, weight + o * p.inputs, tokens, y + o, y_stride, next);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
