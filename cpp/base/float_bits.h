// Narrow floats to fp32 and back by integer arithmetic and selects: portable, exact, and a form that compilers vectorise.
// No product with a denormal occurs, so the results do not depend on the processor's flush-to-zero mode.
#pragma once

#include <bit>
#include <cstdint>

namespace lamella {

[[nodiscard]] constexpr float f32_from_bf16(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// `a` where `condition` holds, else `b`, by masks: gcc makes branches of a conditional expression with a float
/// operation in it, and then no vector code (for fp16 with SSE2: 0.9 thousand million elements a second against 2.8).
[[nodiscard]] constexpr std::uint32_t select(bool condition, std::uint32_t a, std::uint32_t b) noexcept {
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(condition);
  return (a & mask) | (b & ~mask);
}

/// Bits of `count` * `unit` for the small whole numbers of subnormals.
[[nodiscard]] constexpr std::uint32_t scaled(int count, float unit) noexcept {
  return std::bit_cast<std::uint32_t>(static_cast<float>(count) * unit);
}

[[nodiscard]] constexpr float f32_from_f16(std::uint16_t bits) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fff) << 13;  // in fp32's places
  const std::uint32_t exponent = magnitude & 0x0f800000;
  const std::uint32_t normal = magnitude + (112u << 23);  // from bias 15 to bias 127
  const std::uint32_t finite = select(exponent == 0, scaled(bits & 0x3ff, 0x1p-24f), normal);
  const std::uint32_t special = magnitude | 0x7f800000;  // infinity and NaN
  return std::bit_cast<float>(select(exponent == 0x0f800000, special, finite) | sign);
}

/// 1 sign, 5 exponent and 2 mantissa bits: the upper half of an fp16.
[[nodiscard]] constexpr float f32_from_f8_e5m2(std::uint8_t bits) noexcept {
  return f32_from_f16(static_cast<std::uint16_t>(bits << 8));
}

/// 1 sign, 4 exponent (bias 7) and 3 mantissa bits; no infinities, and only 0x7f and 0xff are NaN.
[[nodiscard]] constexpr float f32_from_f8_e4m3(std::uint8_t bits) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80) << 24;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7f) << 20;
  const std::uint32_t normal = magnitude + (120u << 23);
  const std::uint32_t finite = select((bits & 0x78) == 0, scaled(bits & 7, 0x1p-9f), normal);
  return std::bit_cast<float>(select((bits & 0x7f) == 0x7f, 0x7fc00000u, finite) | sign);
}

/// Rounds to the nearest bf16, ties to even. Not for NaN; magnitudes above 0x7f7f7fff become infinity.
[[nodiscard]] constexpr std::uint16_t bf16_from_f32(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

/// Rounds to the nearest fp16, ties to even. Not for NaN; magnitudes from 65520 on become infinity.
[[nodiscard]] constexpr std::uint16_t f16_from_f32(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U, magnitude = bits & 0x7fffffffU;
  // Below 2^-14 an fp16 counts multiples of 2^-24: adding 0.5 leaves that count, rounded to even, in the lowest bits.
  const std::uint32_t small = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
  const std::uint32_t rounded = (magnitude + 0xfffU + (magnitude >> 13 & 1U) - (112U << 23)) >> 13;
  const std::uint32_t finite = select(magnitude < 0x38800000U, small, rounded);
  return static_cast<std::uint16_t>(select(magnitude >= 0x477ff000U, 0x7c00U, finite) | sign);
}

}  // namespace lamella
