// The loops over a row of logits (runtime/logit_kernels.h). Bits are those of the plain ones whatever the width:
// products and sums apart, and a block folded by halves, first whole vectors, then the lanes of the last one.
#pragma once

#include "cpu/kernels/vector/simd.h"
#include "runtime/exp_series.h"
#include "runtime/logit_kernels.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

using U64 = std::uint64_t __attribute__((vector_size(sizeof(F32))));

constexpr std::ptrdiff_t wide_lanes = lanes / 2;
constexpr int block_vectors = static_cast<int>(logit_block) / lanes, wide_vectors = 2 * block_vectors;

LAMELLA_INLINE F64 splat_wide(double x) { return x - F64{}; }

/// Several vectors that go through the same operations side by side, written so that each operation of all stands
/// before the next of any: the compiler keeps that order. One exponential is a chain of 20 operations that wait for
/// each other in the scheduler, which holds but two or three such chains. 49,152 weights on Zen 5 take, with 1, 2, 4
/// and 8 side by side, 36, 33, 28 and 23 us in AVX-512, 65, 66, 52 and 45 in AVX2, 127, 112, 97 and 94 in SSE2,
/// although eight spill: of a block's 450 instructions of AVX-512 340 compute and 74 move vectors.
constexpr int exp_chains = 8;
struct Wide {
  F64 v[exp_chains];
};
template <typename Make>
LAMELLA_INLINE Wide each_chain(Make make) {
  Wide made;
#pragma GCC unroll 8
  for (int c = 0; c < exp_chains; ++c) made.v[c] = make(c);
  return made;
}
LAMELLA_INLINE Wide operator+(Wide a, Wide b) {
  return each_chain([&](int c) LAMELLA_BODY { return a.v[c] + b.v[c]; });
}
LAMELLA_INLINE Wide operator-(Wide a, Wide b) {
  return each_chain([&](int c) LAMELLA_BODY { return a.v[c] - b.v[c]; });
}
LAMELLA_INLINE Wide operator*(Wide a, Wide b) {
  return each_chain([&](int c) LAMELLA_BODY { return a.v[c] * b.v[c]; });
}
LAMELLA_INLINE Wide operator+(double a, Wide b) {
  return each_chain([&](int c) LAMELLA_BODY { return a + b.v[c]; });
}
LAMELLA_INLINE Wide operator*(double a, Wide b) {
  return each_chain([&](int c) LAMELLA_BODY { return a * b.v[c]; });
}

/// e^x for x <= 0 as exp_of_negative(): the same operations in the same order.
LAMELLA_INLINE Wide exp_of_negative(Wide x) {
  const Wide shifted = fp64_exp::to_integer + fp64_exp::log2_e * x;
  const Wide power = -fp64_exp::to_integer + shifted;
  const Wide r = (x - fp64_exp::ln2_high * power) - fp64_exp::ln2_low * power;
  const auto pair = [&](int i) LAMELLA_BODY { return fp64_exp::series[i] + fp64_exp::series[i + 1] * r; };
  const Wide r2 = r * r, r4 = r2 * r2;
  const Wide low = (1.0 + r) + pair(0) * r2, middle = pair(2) + pair(4) * r2, high = pair(6) + pair(8) * r2;
  const Wide series = low + r4 * (middle + r4 * high);
  return each_chain([&](int c) LAMELLA_BODY {
    const F64 result = (F64)((U64)series.v[c] + ((U64)shifted.v[c] << 52));
    return x.v[c] < fp64_exp::least ? F64{} : result;
  });
}

/// Halves a block until one vector is left, and that one until one lane is.
template <int Count, typename Vector, typename Meet>
LAMELLA_INLINE auto fold(Vector* vectors, Meet meet) {
  if constexpr (Count > 1) {
#pragma GCC unroll 16
    for (int i = 0; i < Count / 2; ++i) vectors[i] = meet(vectors[i], vectors[i + Count / 2]);
    return fold<Count / 2>(vectors, meet);
  } else {
    constexpr int width = static_cast<int>(sizeof(Vector) / sizeof(vectors[0][0]));
    auto last = vectors[0];
#pragma GCC unroll 16
    for (int half = width / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) last[i] = meet(last[i], last[i + half]);
    return last[0];
  }
}

LAMELLA_INLINE double sum_block(const double* weights) {
  F64 block[wide_vectors];
#pragma GCC unroll 32
  for (int v = 0; v < wide_vectors; ++v) block[v] = load_bits<F64>(weights + v * wide_lanes);
  return fold<wide_vectors>(block, [](auto a, auto b) LAMELLA_BODY { return a + b; });
}

bool find_maxima(const float* logits, std::size_t count, float* block_max) {
  I32 sound = ~I32{};
  for (std::size_t b = 0; b < count; ++b) {
    F32 block[block_vectors];
#pragma GCC unroll 16
    for (int v = 0; v < block_vectors; ++v) {
      block[v] = load(logits + b * logit_block + static_cast<std::size_t>(v) * lanes);
      sound &= block[v] < __builtin_inff();
    }
    block_max[b] = fold<block_vectors>(block, [](auto x, auto y) LAMELLA_BODY { return x < y ? y : x; });
  }
  bool all = true;
  for (int i = 0; i < lanes; ++i) all = all && sound[i] != 0;
  return all;
}

void weigh(const LogitBlocks& blocks, const LogitWeight& weight, double* weights, double* sums) {
  const F64 best = splat_wide(weight.best), least = splat_wide(weight.least), scale = splat_wide(weight.scale);
  double own[logit_block];
  for (std::size_t b = 0; b < blocks.count; ++b) {
    sums[b] = 0.0;
    if (blocks.block_max[b] < weight.least) continue;
    const float* logits = blocks.logits + b * logit_block;
    double* block = weights == nullptr ? own : weights + b * logit_block;
    for (std::ptrdiff_t i = 0; i < static_cast<std::ptrdiff_t>(logit_block); i += exp_chains * wide_lanes) {
      const Wide logit = each_chain([&](int c) LAMELLA_BODY { return load_wide(logits + i + c * wide_lanes); });
      const Wide value = exp_of_negative(each_chain([&](int c) LAMELLA_BODY { return (logit.v[c] - best) * scale; }));
#pragma GCC unroll 8
      for (int c = 0; c < exp_chains; ++c) {
        const F64 kept = logit.v[c] < least ? F64{} : value.v[c];
        __builtin_memcpy(block + i + c * wide_lanes, &kept, sizeof kept);
      }
    }
    sums[b] = sum_block(block);
  }
}

float find_lowest(const LogitBlocks& blocks, float least, float start) {
  F32 lowest = splat(start);
  for (std::size_t b = 0; b < blocks.count; ++b) {
    if (blocks.block_max[b] < least) continue;
#pragma GCC unroll 16
    for (int v = 0; v < block_vectors; ++v) {
      const F32 logit = load(blocks.logits + b * logit_block + static_cast<std::size_t>(v) * lanes);
      const F32 kept = logit < least ? lowest : logit;
      lowest = kept < lowest ? kept : lowest;
    }
  }
  return fold<1>(&lowest, [](auto x, auto y) LAMELLA_BODY { return y < x ? y : x; });
}

void find_places(const LogitBlocks& blocks, float least, const LogitPlaces& place, std::uint16_t* places) {
  const F32 best = splat(place.best), per_logit = splat(place.per_logit), last = splat(place.last);
  for (std::size_t b = 0; b < blocks.count; ++b) {
    if (blocks.block_max[b] < least) continue;
#pragma GCC unroll 16
    for (int v = 0; v < block_vectors; ++v) {
      const std::size_t at = b * logit_block + static_cast<std::size_t>(v) * lanes;
      const F32 distance = (best - load(blocks.logits + at)) * per_logit;
      const U16 narrow = __builtin_convertvector(__builtin_convertvector(distance < last ? distance : last, I32), U16);
      __builtin_memcpy(places + at, &narrow, sizeof narrow);
    }
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
