// The values of random blocks are compared with the Python package gguf in tests/python/test_expand.py; here are the
// blocks whose values can be worked out by hand, and the narrow floats in full.
#include "io/expand.h"

#include <bit>
#include <cmath>
#include <limits>

#include "checkpoint_files.h"
#include "base/float_bits.h"

namespace lamella::test {
namespace {

using io::StorageType;

std::vector<float> expand(StorageType type, const std::string& bytes) {
  const auto& layout = io::traits(type);
  std::vector<float> out(bytes.size() / layout.bytes * layout.elements);
  io::expand_row_range_to_f32(type, bytes_of(bytes), out);
  return out;
}

constexpr std::uint16_t half_one = 0x3c00, half_two = 0x4000, half_quarter = 0x3400;

/// An fp16 by its definition, in double.
double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31)
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

TEST(Expand, EveryHalf) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const double expected = half_value(static_cast<std::uint16_t>(bits));
    const float found = io::f32_from_f16(static_cast<std::uint16_t>(bits));
    ASSERT_TRUE(std::isnan(expected) ? std::isnan(found) : found == expected) << bits;
    ASSERT_EQ(std::signbit(found), bits >= 0x8000) << bits;
  }
}

TEST(Expand, EveryF8) {
  for (int bits = 0; bits < 256; ++bits) {
    const double sign = bits >= 128 ? -1 : 1;
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const double expected = sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
    const float found = io::f32_from_f8_e4m3(static_cast<std::uint8_t>(bits));
    ASSERT_TRUE((bits & 127) == 127 ? std::isnan(found) : found == expected) << bits;

    const double wide = half_value(static_cast<std::uint16_t>(bits << 8));
    const float e5m2 = io::f32_from_f8_e5m2(static_cast<std::uint8_t>(bits));
    ASSERT_TRUE(std::isnan(wide) ? std::isnan(e5m2) : e5m2 == wide) << bits;
  }
}

TEST(Expand, PlainTypes) {
  EXPECT_EQ(expand(StorageType::f32, raw(1.5f) + raw(-2.0f)), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(expand(StorageType::f64, raw(0.1) + raw(1e300)),
            (std::vector<float>{0.1f, std::numeric_limits<float>::infinity()}));
  EXPECT_EQ(expand(StorageType::f16, raw(half_one) + raw(half_quarter)), (std::vector<float>{1.0f, 0.25f}));
  EXPECT_EQ(expand(StorageType::bf16, raw<std::uint16_t>(0x3f80) + raw<std::uint16_t>(0xc000)),
            (std::vector<float>{1.0f, -2.0f}));
  EXPECT_TRUE(expand(StorageType::f32, "").empty());
}

TEST(Expand, Q4_0) {
  const auto values =
      expand(StorageType::q4_0, raw(half_two) + std::string(16, '\x9f'));  // low nibble 15, high nibble 9
  EXPECT_EQ(values[0], 2.0f * (15 - 8));
  EXPECT_EQ(values[15], 14.0f);
  EXPECT_EQ(values[16], 2.0f * (9 - 8));
}

TEST(Expand, Q4_1) {
  const auto values = expand(StorageType::q4_1, raw(half_two) + raw(half_quarter) + std::string(16, '\x9f'));
  EXPECT_EQ(values[0], 30.25f);
  EXPECT_EQ(values[31], 18.25f);
}

TEST(Expand, Q5_0AndQ5_1) {
  const std::string codes =
      raw<std::uint32_t>(1u | 1u << 17) + std::string(16, '\x21');  // fifth bits of elements 0 and 17
  const auto signed_values = expand(StorageType::q5_0, raw(half_one) + codes);
  EXPECT_EQ(signed_values[0], 1.0f);  // 16 + 1 - 16
  EXPECT_EQ(signed_values[1], -15.0f);  // 1 - 16
  EXPECT_EQ(signed_values[16], -14.0f);
  EXPECT_EQ(signed_values[17], 2.0f);
  const auto values = expand(StorageType::q5_1, raw(half_one) + raw(half_two) + codes);
  EXPECT_EQ(values[0], 19.0f);
  EXPECT_EQ(values[16], 4.0f);
}

TEST(Expand, Q8_0) {
  const auto values = expand(StorageType::q8_0, raw(half_quarter) + std::string(32, '\x80'));
  EXPECT_EQ(values, std::vector<float>(32, -32.0f));
}

TEST(Expand, Q6_K) {
  // All codes 0b110001 = 49, all scales 2, d = 1: 2 * (49 - 32).
  const auto values = expand(
      StorageType::q6_k, std::string(128, '\x11') + std::string(64, '\xff') + std::string(16, '\2') + raw(half_one));
  EXPECT_EQ(values, std::vector<float>(256, 34.0f));
}

TEST(Expand, Q4_KScalesOfBothHalves) {
  // Groups 0 to 3: scale 1, minimum 0. Groups 4 to 7: scale 0b010011 = 19 from a nibble (3) and two top bits (1),
  // minimum 0.
  const std::string packed = std::string(4, '\x41') + std::string(4, '\0') + std::string(4, '\x03');
  const auto values = expand(StorageType::q4_k, raw(half_one) + raw(half_one) + packed + std::string(128, '\x22'));
  EXPECT_EQ(values[0], 2.0f);
  EXPECT_EQ(values[127], 2.0f);
  EXPECT_EQ(values[128], 38.0f);
  EXPECT_EQ(values[255], 38.0f);
}

TEST(Expand, A5_IntegersAreRefused) {
  for (const StorageType type :
       {StorageType::i64, StorageType::i32, StorageType::i16, StorageType::i8, StorageType::u64, StorageType::u32,
        StorageType::u16, StorageType::u8, StorageType::boolean}) {
    EXPECT_FALSE(io::expands_to_f32(type));
    expect_error(ErrorCode::unsupported_model, {std::string(io::traits(type).name)},
                 [&] { io::expand_row_range_to_f32(type, {}, {}); });
  }
}

TEST(Expand, SpansMustMatch) {
  std::vector<float> out(31);
  const std::string block(18, '\0');
  expect_error(ErrorCode::internal, {"Q4_0"},
               [&] { io::expand_row_range_to_f32(StorageType::q4_0, bytes_of(block), out); });
}

}  // namespace
}  // namespace lamella::test
