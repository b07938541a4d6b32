// Layer norm and RMS norm, row by row.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// What a norm does to a row; norm kernels and fused kernels share it.
struct RowNorm {
  NormKind kind;
  const float *weight, *bias;
  float eps;
  std::int64_t width;
};

/// The sum of term(i, count) over a row's vectors, in four chains: one would wait for every addition.
template <typename Term>
LAMELLA_INLINE float sum_row(std::int64_t width, Term term) {
  constexpr std::int64_t step = std::int64_t{4} * lanes;
  F32 sums[4] = {};
  std::int64_t i = 0;
  for (; i + step <= width; i += step) {
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; ++chain) sums[chain] += term(i + std::int64_t{chain} * lanes, lanes);
  }
  F32 rest = {};
  for (; i < width; i += lanes) rest += term(i, static_cast<int>(smaller(lanes, width - i)));
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]) + rest);
}

template <typename T>
void normalise_row(const T* x, T* y, const RowNorm& norm) {
  if (norm.kind == NormKind::none) {
    if (x != y) __builtin_memcpy(y, x, static_cast<std::size_t>(norm.width) * sizeof(T));
    return;
  }
  const float width = static_cast<float>(norm.width);
  float mean = 0.0F;
  if (norm.kind == NormKind::layer_norm)
    mean = sum_row(norm.width, [&](std::int64_t i, int count) LAMELLA_BODY { return load(x + i, count); }) / width;
  const float squares = sum_row(norm.width, [&](std::int64_t i, int count) LAMELLA_BODY {
    const F32 d = load(x + i, count) - mean;
    return first_lanes(d * d, count, F32{});
  });
  const float scale = 1.0F / __builtin_sqrtf(squares / width + norm.eps);
  each_vector(norm.width, [&](std::int64_t i, int count) LAMELLA_BODY {
    F32 v = (load(x + i, count) - mean) * scale * load(norm.weight + i, count);
    if (norm.bias != nullptr) v += load(norm.bias + i, count);
    store(y + i, v, count);
  });
}

template <typename T>
void norm(const NormArgs& a, const Worker& worker) {
  const RowNorm row_norm{a.kind, a.weight, a.bias, a.eps, a.width};
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    normalise_row(static_cast<const T*>(a.x) + t * a.width, static_cast<T*>(a.y) + t * a.width, row_norm);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
