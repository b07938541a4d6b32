// Rounding a row to whole numbers with one scale: the inputs of int8 linears, K and V in an int8 cache, and the rows that
// meet them there.
//
// The scale is the row's largest magnitude over `most`. A row below 2^-100 becomes zeros with a scale of zero; one that
// holds NaN or infinity becomes zeros with a scale of NaN.
#pragma once

#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// join(...) of all lanes, halves with halves: one lane after another would take four times as long.
template <typename Join>
LAMELLA_INLINE std::int32_t fold_lanes(I32 v, Join join) {
  std::int32_t halves[lanes];
  __builtin_memcpy(halves, &v, sizeof v);
#pragma GCC unroll 4
  for (int n = lanes / 2; n > 0; n /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) halves[i] = join(halves[i], halves[i + n]);
  return halves[0];
}

/// The magnitudes met so far. They compare as integers, NaN above all.
struct Magnitudes {
  I32 largest = {};

  LAMELLA_INLINE void meet(F32 v) {
    const I32 magnitude = (I32)absolute(v);
    largest = magnitude > largest ? magnitude : largest;
  }
};

template <typename X>
LAMELLA_INLINE Magnitudes magnitudes_of(const X* row, std::int64_t width) {
  Magnitudes magnitudes;
  each_vector(width, [&](std::int64_t i, int count) LAMELLA_BODY { magnitudes.meet(load(row + i, count)); });
  return magnitudes;
}

/// How numbers of such magnitudes become whole numbers of at most `most`, which is below 2^22.
struct Rounding {
  float scale, inverse;
  bool zero;

  LAMELLA_INLINE Rounding(const Magnitudes& magnitudes, float most) {
    const std::int32_t bits =
        fold_lanes(magnitudes.largest, [](std::int32_t a, std::int32_t b) LAMELLA_BODY { return a > b ? a : b; });
    float top;
    __builtin_memcpy(&top, &bits, sizeof top);
    const bool finite = bits < 0x7f800000;
    zero = !finite || top < 0x1p-100F;
    inverse = zero ? 0.0F : most / top;
    scale = !finite ? __builtin_nanf("") : zero ? 0.0F : top / most;
  }

  /// To the nearest, ties to even: adding 1.5 * 2^23 leaves the whole number in the lowest bits.
  LAMELLA_INLINE I32 round(F32 v) const {
    const F32 rounded = v * inverse + 12582912.0F;
    return zero ? I32{} : (I32)rounded - 0x4b400000;
  }
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
