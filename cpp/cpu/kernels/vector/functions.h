// Exponential, tanh and what gelu needs, of vectors, within 2 ulp of fp32 (measured: test_activation). Coefficients are
// Chebyshev or least-maximum fits computed with mpmath on the intervals named beside them, rounded to fp32; approximation
// errors lie below 3e-8.
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

/// x times the normal distribution's share below x: x (1 + erf(x / sqrt 2)) / 2, from half of erfc(|x| / sqrt 2) = 2^-q, which
/// unlike 1 + erf does not cancel below zero. Half of erfc counts as zero from 5.5 on, where it is 1.9e-8.
LAMELLA_INLINE F32 times_normal_share(F32 x) {
  constexpr float end = 5.5F, round_magic = 12582912.0F;  // exponential()
  const F32 magnitude = absolute(x), t = magnitude < end ? magnitude : splat(end);
  // log2(erfc(t / sqrt 2)) / t on [0, 5.5], its error weighted by erfc
  const F32 p = polynomial(t, {-2.57108983e-8F, 7.74279044e-7F, -1.00230673e-5F, 7.08133521e-5F, -2.60069035e-4F,
                               -4.01613361e-5F, 6.99424697e-3F, -5.24712801e-2F, -0.459211946F, -1.15110505F});
  const F32 log2_erfc = t * p, shifted = log2_erfc + round_magic;
  // 2^r / 2 on [-1/2, 1/2]
  const F32 e = polynomial(log2_erfc - (shifted - round_magic), {7.67290621e-5F, 6.69996545e-4F, 4.80924454e-3F,
                                                                 2.77516432e-2F, 0.120113231F, 0.346573591F, 0.5F});
  const F32 below = (F32)((I32)e + ((I32)shifted << 23)), share = magnitude < end ? below : F32{};
  return x * (x < 0.0F ? share : 1.0F - share);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
