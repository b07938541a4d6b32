// Packing against unpack_row, which reads one number at a time by the layout's definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/float_bits.h"
#include "formats.h"
#include "lamella/error.h"
#include "packed.h"

namespace lamella::testing {
namespace {

constexpr std::int64_t row_counts[] = {1, 15, 16, 33, 64, 100};
constexpr std::int64_t widths[] = {1, 7, 32, 45, 96, 130, 1100};

float as_stored(float value, Element element) {
  if (element == Element::bf16) return f32_from_bf16(bf16_from_f32(value));
  return element == Element::f16 ? f32_from_f16(f16_from_f32(value)) : value;
}

TEST(PackFloats, GivesBackEveryNumberRounded) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const WeightFormat& format : {formats::f32, formats::f16, formats::bf16}) {
    for (const std::int64_t rows : row_counts) {
      for (const std::int64_t width : widths) {
        std::vector<float> values(static_cast<std::size_t>(rows * width));
        for (float& value : values) value = normal(random);
        OwnedMatrix matrix(rows, width, format);
        pack_floats(matrix.room, 0, values);
        for (float& value : values) value = as_stored(value, format.element);
        ASSERT_EQ(matrix.unpacked(), values) << to_string(format) << " " << rows << "x" << width;
      }
    }
  }
}

/// Any codes, with scales and offsets that are numbers.
CodedRows random_codes(std::mt19937& random, const WeightFormat& format, std::int64_t rows, std::int64_t width) {
  CodedRows coded;
  coded.resize(format, rows, width);
  std::uniform_real_distribution<float> number(0.01F, 2.0F);
  for (std::uint8_t& code : coded.codes) code = static_cast<std::uint8_t>(random() % (1U << bits_of(format.element)));
  for (std::uint32_t& scale : coded.scales)
    scale = format.scale == Scale::f32 ? std::bit_cast<std::uint32_t>(number(random)) : f16_from_f32(number(random));
  for (std::uint16_t& offset : coded.offsets)
    offset =
        format.offset == Offset::minimum ? f16_from_f32(-number(random)) : static_cast<std::uint16_t>(random() % 256);
  return coded;
}

/// The numbers of coded rows, by the formats' definition.
std::vector<float> numbers(const CodedRows& coded, const WeightFormat& format) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < coded.rows * coded.inputs; ++i) {
    const std::int64_t group = format.group == 0 ? 0 : i % coded.inputs / format.group;
    const auto at = static_cast<std::size_t>(i / coded.inputs * coded.groups + group);
    const float scale = format.scale == Scale::f32 ? std::bit_cast<float>(coded.scales[at])
                                                   : f32_from_f16(static_cast<std::uint16_t>(coded.scales[at]));
    std::int32_t code = coded.codes[static_cast<std::size_t>(i)] - code_bias(format);
    if (format.offset == Offset::zero) code -= coded.offsets[at];
    const float scaled = scale * static_cast<float>(code);
    values.push_back(format.offset == Offset::minimum ? scaled + f32_from_f16(coded.offsets[at]) : scaled);
  }
  return values;
}

TEST(PackCodes, GivesBackEveryNumber) {
  std::mt19937 random(2);
  for (const WeightFormat& format : quantised_formats()) {
    for (const std::int64_t rows : row_counts) {
      for (const std::int64_t width : widths) {
        const CodedRows coded = random_codes(random, format, rows, width);
        OwnedMatrix matrix(rows, width, format);
        pack_codes(matrix.room, 0, coded);
        ASSERT_EQ(matrix.unpacked(), numbers(coded, format)) << to_string(format) << " " << rows << "x" << width;
      }
    }
  }
}

TEST(Pack, TilesOneByOneGiveTheSameBytesAndPaddingStaysZero) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  constexpr std::int64_t rows = 70, width = 51;
  std::vector<float> values(rows * width);
  for (float& value : values) value = normal(random);
  for (const WeightFormat& format : all_formats()) {
    OwnedMatrix whole(rows, width, format), tiles(rows, width, format);
    CodedRows coded;
    const auto pack = [&](OwnedMatrix& matrix, std::int64_t first, std::int64_t count) {
      const std::span part =
          std::span(values).subspan(static_cast<std::size_t>(first * width), static_cast<std::size_t>(count * width));
      if (!is_quantised(format)) return pack_floats(matrix.room, first, part);
      quantise_rows(part, count, width, format, Rounding::nearest, coded);
      pack_codes(matrix.room, first, coded);
    };
    pack(whole, 0, rows);
    for (std::int64_t first = 64; first >= 0; first -= 16) pack(tiles, first, std::min<std::int64_t>(16, rows - first));
    ASSERT_EQ(whole.bytes, tiles.bytes) << to_string(format);
    const PanelLayout layout = whole.packed().layout();
    for (std::int64_t lane = rows; lane < layout.tiles() * tile_outputs; ++lane)
      for (std::int64_t group = 0; group < layout.groups; ++group)
        for (std::int64_t word = 0; word < layout.words_of(group); ++word)
          for (std::int64_t byte = 0; byte < 4; ++byte)
            ASSERT_EQ(whole.bytes[static_cast<std::size_t>(layout.word_offset(lane, group, word) + byte)], std::byte{});
  }
}

TEST(Pack, RowsOffTheTileGridAreABrokenInvariant) {
  OwnedMatrix matrix(40, 3, formats::f32);
  const std::vector<float> values(40 * 3);
  const std::span all(values);
  EXPECT_THROW(pack_floats(matrix.room, 8, all.first(16 * 3)), Error);
  EXPECT_THROW(pack_floats(matrix.room, 0, all.first(8 * 3)), Error);
  EXPECT_THROW(pack_floats(matrix.room, 16, all), Error);
  EXPECT_NO_THROW(pack_floats(matrix.room, 32, all.first(8 * 3)));
}

}  // namespace
}  // namespace lamella::testing
