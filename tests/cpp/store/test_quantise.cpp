// What quantising may cost at most, and the rows that are easy to get wrong.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "base/float_bits.h"
#include "formats.h"
#include "packed.h"
#include "rotated.h"

namespace lamella::testing {
namespace {

std::vector<float> quantised(const std::vector<float>& values, std::int64_t rows, const WeightFormat& format,
                             Rounding rounding) {
  const std::int64_t width = std::int64_t(values.size()) / rows;
  CodedRows codes;
  quantise_rows(values, rows, width, format, rounding, codes);
  OwnedMatrix matrix(rows, width, format);
  pack_codes(matrix.room, 0, codes);
  return matrix.unpacked();
}

std::vector<float> normal_rows(unsigned seed, std::size_t count, float deviation) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return error;
}

TEST(Quantise, NearestCodesAreAtMostHalfAStepAway) {
  for (const WeightFormat& format : quantised_formats()) {
    for (const std::int64_t width : {1, 5, 32, 33, 100, 257}) {
      for (const float deviation : {1e-3F, 1.0F, 500.0F}) {
        constexpr std::int64_t rows = 17;
        std::vector<float> values = normal_rows(7, static_cast<std::size_t>(rows * width), deviation);
        const std::vector<float> found = quantised(values, rows, format, Rounding::nearest);
        if (format.input == LinearInput::int8_rotated)
          for (auto row = values.begin(); row < values.end(); row += width)
            std::ranges::copy(rotated64(std::span(row, static_cast<std::size_t>(width))), row);
        const std::int64_t group = format.group == 0 ? width : format.group;
        for (std::int64_t begin = 0; begin < rows * width;) {
          const std::int64_t end = std::min(begin + group, (begin / width + 1) * width);
          const auto [low, high] = std::minmax_element(values.begin() + begin, values.begin() + end);
          const float levels = static_cast<float>((1 << bits_of(format.element)) - 1);
          const float largest = std::max(std::fabs(*low), std::fabs(*high));
          const float range = format.offset == Offset::none      ? 2.0F * largest * levels / (levels - 1.0F)
                              : format.offset == Offset::minimum ? *high - *low
                                                                 : std::max(*high, 0.0F) - std::min(*low, 0.0F);
          // Half a step; fp16 moves the scale by 2^-11 of itself, and a minimum or a whole zero the ends a little.
          const float slack = format.offset == Offset::zero ? 1.02F * range / levels : 0.0F;
          // Below 2^-25 a scale is 0, and the group with it.
          const float vanishing = format.group == 0 ? 0.0F : levels * 0x1p-25F;
          const float bound = 0.5F * range / levels + 0x1p-10F * largest + slack + vanishing + 1e-7F;
          for (std::int64_t i = begin; i < end; ++i)
            ASSERT_NEAR(found[static_cast<std::size_t>(i)], values[static_cast<std::size_t>(i)], bound)
                << to_string(format) << " width " << width << " deviation " << deviation;
          begin = end;
        }
      }
    }
  }
}

TEST(Quantise, ARowsLargestNumberIsExactlyItsInt8End) {
  std::vector<float> row = normal_rows(8, 300, 0.1F);
  row[77] = -4.0F;
  CodedRows codes;
  quantise_rows(row, 1, 300, formats::int8, Rounding::nearest, codes);
  EXPECT_EQ(codes.codes[77], 128 - 127);
  EXPECT_EQ(std::bit_cast<float>(codes.scales[0]), 4.0F / 127.0F);
}

TEST(Quantise, D5_ZeroRowsAndSubnormalMaximaAreExactlyZero) {
  for (const WeightFormat& format : quantised_formats()) {
    // Groups that fp16 cannot scale; for whole rows numbers whose fp32 scale is subnormal.
    for (const float tiny : {0.0F, -0.0F, std::numeric_limits<float>::denorm_min(), 1e-40F, 0x1p-127F, -0x1p-120F}) {
      for (const Rounding rounding : {Rounding::nearest, Rounding::clip_search}) {
        std::vector<float> values = normal_rows(9, 2 * 70, 1.0F);
        std::fill_n(values.begin(), 70, tiny);
        values[3] = -tiny;
        const std::vector<float> found = quantised(values, 2, format, rounding);
        for (std::size_t i = 0; i < 70; ++i) ASSERT_EQ(found[i], 0.0F) << to_string(format) << " " << tiny;
        EXPECT_GT(squared_error(found, std::vector<float>(140)), 1.0);  // the other row is alive
        CodedRows codes;
        quantise_rows(values, 2, 70, format, rounding, codes);
        EXPECT_EQ(codes.scales[0], 0U);
        const auto zero = static_cast<std::uint8_t>(code_bias(format));
        EXPECT_EQ(std::count(codes.codes.begin(), codes.codes.begin() + 70, zero), 70) << to_string(format);
      }
    }
  }
}

TEST(Quantise, D5_ScalesInFp16sSubnormalRangeNeitherClipNorVanish) {
  for (const WeightFormat& format : {formats::q8_0, formats::int4, formats::q4_1}) {
    for (const Rounding rounding : {Rounding::nearest, Rounding::clip_search}) {
      // Scales from 2^-24, fp16's smallest, upwards; below that a group is 0.
      for (const float size : {2e-7F, 1e-6F, 7e-6F, 3e-5F, 2e-4F}) {
        const std::vector<float> values = normal_rows(10, 320, size);
        const double all = squared_error(values, std::vector<float>(320));
        EXPECT_LE(squared_error(quantised(values, 5, format, rounding), values), all) << to_string(format) << size;
      }
    }
  }
}

TEST(Quantise, LargestMagnitudesGiveNumbers) {
  for (const WeightFormat& format : quantised_formats()) {
    const float most = largest_magnitude(format);
    for (const Rounding rounding : {Rounding::nearest, Rounding::clip_search}) {
      std::vector<float> values = normal_rows(11, 64, 1.0F);
      values[0] = most;
      values[40] = -most;
      values[41] = most;
      for (const float value : quantised(values, 1, format, rounding))
        ASSERT_TRUE(std::isfinite(value)) << to_string(format);
    }
  }
}

TEST(Quantise, ALineThatBeginsBeyondFp16IsCutThere) {
  // The least squares of this group's minimum lie at -69,091.
  std::vector<float> values(32, -65504.0F + 0.6F * 131008.0F / 15.0F);
  values.front() = -65504.0F;
  values.back() = 65504.0F;
  for (const float value : quantised(values, 1, formats::q4_1, Rounding::clip_search))
    ASSERT_TRUE(std::isfinite(value)) << value;
}

TEST(Quantise, RowsDependOnNothingButThemselves) {
  const std::vector<float> values = normal_rows(12, 8 * 77, 0.5F);
  for (const WeightFormat& format : quantised_formats()) {
    const std::vector<float> together = quantised(values, 8, format, Rounding::clip_search);
    for (std::size_t row = 0; row < 8; ++row) {
      const std::vector<float> alone(values.begin() + std::ptrdiff_t(row) * 77,
                                     values.begin() + std::ptrdiff_t(row + 1) * 77);
      const std::vector<float> found = quantised(alone, 1, format, Rounding::clip_search);
      ASSERT_TRUE(std::equal(found.begin(), found.end(), together.begin() + std::ptrdiff_t(row) * 77))
          << to_string(format);
    }
  }
}

}  // namespace
}  // namespace lamella::testing
