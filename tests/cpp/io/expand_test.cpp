// The values of random blocks are compared with the Python package gguf in tests/python/test_expand.py; here are the
// blocks whose values can be worked out by hand, and the narrow floats in full.
#include "io/expand.h"

#include <bit>
#include <cmath>
#include <limits>

#include "base/float_bits.h"
#include "checkpoint_files.h"

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
    const float found = f32_from_f16(static_cast<std::uint16_t>(bits));
    ASSERT_TRUE(std::isnan(expected) ? std::isnan(found) : found == expected) << bits;
    ASSERT_EQ(std::signbit(found), bits >= 0x8000) << bits;
  }
}

TEST(Expand, EveryF8) {
  for (int bits = 0; bits < 256; ++bits) {
    const double sign = bits >= 128 ? -1 : 1;
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const double expected = sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
    const float found = f32_from_f8_e4m3(static_cast<std::uint8_t>(bits));
    ASSERT_TRUE((bits & 127) == 127 ? std::isnan(found) : found == expected) << bits;

    const double wide = half_value(static_cast<std::uint16_t>(bits << 8));
    const float e5m2 = f32_from_f8_e5m2(static_cast<std::uint8_t>(bits));
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

// The types with codebooks. An entry is known without the codebook at its ends: the first vector has the least
// components everywhere, IQ1's last one the greatest. A value of "d = 1, scale code 0" is 1/8 (IQ2), 1/4 (IQ3_XXS) or 1
// times the component.

TEST(Expand, IQ1_SOffsetsAndScales) {
  // Vectors 0 and 2047, all -1 and all 1. Group 0: scale 2 * 3 + 1 = 7 and offset 1/8; group 1: scale 1, offset -1/8.
  const std::string low = std::string(1, '\0') + std::string(31, '\xff');
  const std::string words =
      raw<std::uint16_t>(0x3000 | 07770) + raw<std::uint16_t>(0x8000 | 07777) + std::string(12, '\0');
  const auto values = expand(StorageType::iq1_s, raw(half_one) + low + words);
  EXPECT_EQ(values[0], 7 * (-1 + 0.125f));
  EXPECT_EQ(values[7], 7 * (-1 + 0.125f));
  EXPECT_EQ(values[8], 7 * (1 + 0.125f));
  EXPECT_EQ(values[31], 7 * (1 + 0.125f));
  EXPECT_EQ(values[32], 1 - 0.125f);
  EXPECT_EQ(values[63], 1 - 0.125f);
}

TEST(Expand, IQ1_MGathersItsScale) {
  // d = 2 = 0x4000: nibbles 0, 0, 0 and 4 atop four words, of which the second also holds scales 1, 0, 0, 0. All vectors
  // are the last one, the odd eights with a negative offset.
  const std::string words =
      raw<std::uint16_t>(0) + raw<std::uint16_t>(1) + raw<std::uint16_t>(0) + raw<std::uint16_t>(0x4000);
  const auto values = expand(StorageType::iq1_m, std::string(32, '\xff') + std::string(16, '\xf7') + words);
  EXPECT_EQ(values[0], 2 * (1 + 0.125f));
  EXPECT_EQ(values[8], 2 * (1 - 0.125f));
  EXPECT_EQ(values[63], 2 * (1 - 0.125f));
  EXPECT_EQ(values[64], 2 * 3 * (1 + 0.125f));
  EXPECT_EQ(values[79], 2 * 3 * (1 - 0.125f));
  EXPECT_EQ(values[80], 2 * (1 + 0.125f));
}

TEST(Expand, IQ2AndIQ3Signs) {
  // Vectors 0. The second of seven signs alone makes the eighth negative as well; scale code 15 is 15.5.
  const std::string packed = raw<std::uint32_t>(0) + raw<std::uint32_t>(0xf0000000u | 2u << 7);
  const auto xxs = expand(StorageType::iq2_xxs, raw(half_one) + packed + std::string(56, '\0'));
  EXPECT_EQ(xxs[0], 15.5f * 0.25f * 8);
  EXPECT_EQ(std::vector<float>(xxs.begin() + 8, xxs.begin() + 16),
            (std::vector<float>{31, -31, 31, 31, 31, 31, 31, -31}));
  EXPECT_EQ(xxs[32], 1.0f);

  const auto xs = expand(StorageType::iq2_xs, raw(half_one) + raw<std::uint16_t>(2 << 9) + std::string(62, '\0') +
                                                  std::string(1, '\x01') + std::string(7, '\0'));
  EXPECT_EQ(xs[0], 3.0f);
  EXPECT_EQ(xs[1], -3.0f);
  EXPECT_EQ(xs[7], -3.0f);
  EXPECT_EQ(xs[16], 1.0f);

  const auto iq3 =
      expand(StorageType::iq3_xxs, raw(half_two) + std::string(64, '\0') + raw(2u) + std::string(28, '\0'));
  EXPECT_EQ(std::vector<float>(iq3.begin(), iq3.begin() + 9), (std::vector<float>{2, -2, 2, 2, 2, 2, 2, -2, 2}));

  // All eight signs are stored. Scale code 2 is 5.
  const std::string signs = std::string(1, '\x02') + std::string(31, '\0');
  const auto s = expand(StorageType::iq3_s,
                        raw(half_one) + std::string(64, '\0') + std::string(8, '\0') + signs + std::string(4, '\x20'));
  EXPECT_EQ(std::vector<float>(s.begin(), s.begin() + 4), (std::vector<float>{1, -1, 1, 1}));
  EXPECT_EQ(s[32], 5.0f);
}

TEST(Expand, IQ4) {
  const auto nl = expand(StorageType::iq4_nl, raw(half_two) + std::string(16, '\xf0'));
  EXPECT_EQ(nl[0], -254.0f);
  EXPECT_EQ(nl[31], 226.0f);
  // Group 0: scale 0 - 32. Group 1: 3 in its nibble and 2 above make 35.
  const auto xs = expand(StorageType::iq4_xs, raw(half_one) + raw<std::uint16_t>(2 << 2) + std::string(1, '\x30') +
                                                  std::string(3, '\0') + std::string(128, '\x8f'));
  EXPECT_EQ(xs[0], -32.0f * 113);
  EXPECT_EQ(xs[32], 3.0f * 113);
  EXPECT_EQ(xs[48], 3.0f);
}

TEST(Expand, Ternary) {
  // The digits 2, 1, 0, 0, 0 make 189 of 243: ceil(189 * 256 / 243) = 200.
  const auto tq1 = expand(StorageType::tq1_0, std::string(52, '\xc8') + raw(half_two));
  EXPECT_EQ(tq1[0], 2.0f);
  EXPECT_EQ(tq1[32], 0.0f);
  EXPECT_EQ(tq1[64], -2.0f);
  EXPECT_EQ(tq1[160], 2.0f);
  EXPECT_EQ(tq1[240], 2.0f);
  EXPECT_EQ(tq1[244], 0.0f);
  EXPECT_EQ(tq1[255], -2.0f);
  const auto tq2 = expand(StorageType::tq2_0, std::string(64, '\xe4') + raw(half_one));  // codes 0, 1, 2, 3
  for (std::size_t group = 0; group < 8; ++group) EXPECT_EQ(tq2[group * 32], static_cast<float>(group % 4) - 1);
}

TEST(Expand, EveryMxfp4Scale) {
  for (int bits = 0; bits < 256; ++bits) {
    const auto values = expand(StorageType::mxfp4, std::string(1, static_cast<char>(bits)) + std::string(16, '\x97'));
    EXPECT_EQ(values[0], static_cast<float>(std::ldexp(6.0, bits - 127))) << bits;
    EXPECT_EQ(values[16], static_cast<float>(std::ldexp(-0.5, bits - 127))) << bits;
  }
}

TEST(Expand, EveryNvfp4Scale) {
  for (int bits = 0; bits < 256; ++bits) {
    const float scale = bits == 0x7f ? 0 : bits == 0xff ? 480 : f32_from_f8_e4m3(static_cast<std::uint8_t>(bits & 127));
    const auto values = expand(
        StorageType::nvfp4, std::string(3, '\0') + std::string(1, static_cast<char>(bits)) + std::string(32, '\xb2'));
    EXPECT_EQ(values[48], scale) << bits;
    EXPECT_EQ(values[56], -1.5f * scale) << bits;
    EXPECT_EQ(values[47], 0.0f);
  }
}

// Exact allocations: what reads or writes beyond them, or beyond a codebook, is a find for the sanitizers.
TEST(Expand, AnyBytes) {
  std::uint32_t state = 20261121;
  for (auto type = StorageType::f64; type <= StorageType::nvfp4;
       type = static_cast<StorageType>(static_cast<int>(type) + 1)) {
    if (!io::expands_to_f32(type)) continue;
    for (int block = 0; block < 300; ++block) {
      std::vector<std::byte> bytes(io::traits(type).bytes);
      for (std::byte& byte : bytes)
        byte = block == 0 ? std::byte{0xff} : static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
      std::vector<float> values(io::traits(type).elements);
      io::expand_row_range_to_f32(type, bytes, values);
    }
  }
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
