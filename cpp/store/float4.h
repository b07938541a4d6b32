// Four floats at a time on whatever the machine has (SSE2, NEON): vector code at every optimisation level, and sums of
// one fixed order, so that a packed store has the same bytes on every machine.
#pragma once

#include <cstring>

namespace lamella {

using Float4 = float __attribute__((vector_size(16)));
using Int4 = int __attribute__((vector_size(16)));

[[nodiscard]] inline Float4 broadcast(float value) noexcept { return Float4{value, value, value, value}; }
[[nodiscard]] inline Float4 load4(const float* from) noexcept {
  Float4 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
[[nodiscard]] inline Float4 least(Float4 a, Float4 b) noexcept { return a < b ? a : b; }
[[nodiscard]] inline Float4 largest(Float4 a, Float4 b) noexcept { return a > b ? a : b; }
[[nodiscard]] inline Float4 clamp(Float4 v, Float4 low, Float4 high) noexcept { return least(largest(v, low), high); }
[[nodiscard]] inline float sum(Float4 v) noexcept { return (v[0] + v[1]) + (v[2] + v[3]); }
/// To the nearest whole number, ties to even, for magnitudes below 2^22.
[[nodiscard]] inline Float4 nearest(Float4 v) noexcept {
  const Float4 magic = broadcast(0x1.8p23F);
  return (v + magic) - magic;
}

}  // namespace lamella
