// The numbers of the fp64 exponential that weighs tokens: e^x = 2^n e^r with n = round(x / ln(2)) and r = x - n ln(2),
// e^r = 1 + r + series[0] r^2 + series[1] r^3 ... by Estrin's scheme, the same operations on every machine:
//   r2 = r r, r4 = r2 r2, pair(i) = series[i] + series[i + 1] r
//   ((1 + r) + pair(0) r2) + r4 ((pair(2) + pair(4) r2) + r4 (pair(6) + pair(8) r2))
// In Horner's every step waits for the one before, a quarter more time. Constants have no linkage, so that objects of
// several instruction sets share them.
#pragma once

namespace lamella::fp64_exp {

// The polynomial that meets e^r in the 12 Chebyshev nodes of |r| <= ln(2) / 2, where it is within 2e-17 of it.
constexpr double series[10] = {
    0x1.0000000000011p-1,  0x1.555555555555ap-3,  0x1.555555554f0bap-5,  0x1.111111110f21ep-7,  0x1.6c16c1880029fp-10,
    0x1.a01a01b1461c5p-13, 0x1.a01991a10d9aep-16, 0x1.71ddf56d8deb5p-19, 0x1.28b4101c77212p-22, 0x1.af632a0f7e2cep-26};
constexpr double log2_e = 0x1.71547652b82fep+0;
// Their sum is ln(2). The high part has 32 bits, so that its product with n, of 11, is exact.
constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
constexpr double to_integer = 0x1.8p52;  // a sum with it has no fraction, and the integer in its lowest bits
constexpr double least = -708.0;         // below, e^x would stop being a normal number

}  // namespace lamella::fp64_exp
