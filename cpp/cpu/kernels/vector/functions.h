// Exponential, tanh and error function of vectors, within 2 ulp of fp32 (measured: test_activation). Coefficients are
// Chebyshev fits computed with mpmath on the intervals named beside them, rounded to fp32; approximation errors lie
// below 2e-8.
#pragma once

#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

template <int N>
LAMELLA_INLINE F32 polynomial(F32 x, const float (&highest_first)[N]) {
  F32 sum = splat(highest_first[0]);
#pragma GCC unroll 16
  for (int i = 1; i < N; ++i) sum = multiply_add(sum, x, splat(highest_first[i]));
  return sum;
}

/// e^x. Below -87.3 (where results would be denormal) 0, above 88.7 infinity; NaN stays NaN.
LAMELLA_INLINE F32 exponential(F32 x) {
  constexpr float log2_e = 1.44269504F;
  constexpr float ln2_high = 0.693359375F,
                  ln2_low = -2.12194440e-4F;  // the high part has 9 bits: n * ln2_high is exact
  constexpr float round_magic =
      12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer that stands in the low mantissa bits
  const F32 low = x > -88.0F ? x : splat(-88.0F);  // keeps the exponents below in range, also for NaN
  const F32 clamped = low < 89.0F ? low : splat(89.0F);
  const F32 shifted = multiply_add(clamped, splat(log2_e), splat(round_magic));
  const F32 n = shifted - round_magic;
  const F32 r = multiply_add(n, splat(-ln2_low), multiply_add(n, splat(-ln2_high), clamped));
  // (e^r - 1 - r) / r^2 on [-ln2 / 2, ln2 / 2]
  const F32 p = polynomial(r, {1.98909809e-4F, 1.39336416e-3F, 8.33331048e-3F, 4.16664667e-2F, 0.166666672F, 0.5F});
  const F32 e = multiply_add(r * r, p, r) + 1.0F;
  // 2^n in two factors, because n = 128 (x just below 88.72) has no fp32 of its own.
  const I32 exponent = (I32)shifted - 0x4b400000;
  const I32 half = exponent >> 1;
  const F32 scaled = e * (F32)((half + 127) << 23) * (F32)((exponent - half + 127) << 23);
  const F32 overflow = x > 88.7228394F ? splat(__builtin_inff()) : scaled;
  const F32 finite = x < -87.3365402F ? F32{} : overflow;
  return x == x ? finite : x;
}

/// tanh x. Below 0.625 an odd polynomial, which keeps small results accurate; above, 1 - 2 / (e^2|x| + 1).
LAMELLA_INLINE F32 hyperbolic_tangent(F32 x) {
  const F32 magnitude = absolute(x), square = x * x;
  // (tanh(sqrt z) / sqrt z - 1) / z on [0, 0.625^2]
  const F32 p = polynomial(
      square, {2.29274482e-3F, -8.34394526e-3F, 2.17689183e-2F, -5.39592579e-2F, 0.133333042F, -0.333333343F});
  const F32 small = multiply_add(x * square, p, x);
  const F32 large = 1.0F - 2.0F / (exponential(magnitude + magnitude) + 1.0F);
  const F32 signed_large = (F32)((U32)large | sign_bits(x));
  const F32 result = magnitude < 0.625F ? small : signed_large;
  return x == x ? result : x;
}

/// erf x. Up to 1 an odd polynomial; above, 1 - e^-r(|x| - 1), where r fits -log(erfc); 1 from 3.92 on.
LAMELLA_INLINE F32 error_function(F32 x) {
  const F32 magnitude = absolute(x), square = x * x;
  // erf(sqrt z) / sqrt z - 1 on [0, 1]
  const F32 p = polynomial(square, {-9.66704465e-6F, 1.12659589e-4F, -8.48408032e-4F, 5.22103161e-3F, -2.68654302e-2F,
                                    0.112837821F, -0.376126379F, 0.128379166F});
  const F32 small = multiply_add(x, p, x);
  const F32 beyond = (magnitude < 3.92F ? magnitude : splat(3.92F)) - 1.0F;
  // -log(erfc(1 + t)) on [0, 2.95]
  const F32 r = polynomial(beyond, {-1.65832057e-6F, 3.31933588e-5F, -3.21268977e-4F, 2.05665058e-3F, -1.00807417e-2F,
                                    4.15776968e-2F, 0.843104124F, 2.63896775F, 1.84960556F});
  const F32 large = 1.0F - exponential(-r);
  const F32 signed_large = (F32)((U32)large | sign_bits(x));
  const F32 result = magnitude < 1.0F ? small : signed_large;
  return x == x ? result : x;
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
