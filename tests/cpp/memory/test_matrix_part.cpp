// A part of a packed matrix has the numbers of the whole, in every format, wherever it is cut.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "formats.h"
#include "lamella/error.h"
#include "memory/matrix_part.h"
#include "seed.h"

namespace lamella::testing {
namespace {

using Random = std::mt19937_64;

/// Every word drawn; scales and offsets are what the bits happen to say, but finite.
std::vector<std::byte> draw_matrix(Random& random, const PanelLayout& layout) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(layout.total_bytes()));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0x3f);
  return bytes;
}

std::vector<float> row_of(const PackedMatrix& matrix, std::int64_t output) {
  std::vector<float> row(static_cast<std::size_t>(matrix.inputs));
  unpack_row(matrix, output, row.data());
  return row;
}

void expect_part(const PackedMatrix& whole, const WeightPart& part) {
  std::vector<std::int64_t> sources;
  for (const ShardRange& run : part.outputs)
    for (std::int64_t output = run.begin; output < run.end; ++output) sources.push_back(output);
  const PanelLayout layout(whole.format, static_cast<std::int64_t>(sources.size()), part.inputs.size());
  std::vector<std::byte> room(static_cast<std::size_t>(layout.total_bytes()));
  copy_part(whole, part, room);
  const PackedMatrix own{room.data(), layout.outputs, layout.inputs, whole.format};
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const std::vector<float> all = row_of(whole, sources[i]);
    EXPECT_EQ(row_of(own, static_cast<std::int64_t>(i)),
              std::vector<float>(all.begin() + part.inputs.begin, all.begin() + part.inputs.end));
  }
}

TEST(MatrixPart, HasTheNumbersOfTheWhole) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << seed);
  Random random(seed);
  for (const WeightFormat& format : all_formats()) {
    SCOPED_TRACE(to_string(format));
    for (const std::int64_t inputs : {1, 31, 64, 100, 193}) {
      const std::int64_t outputs = 150;
      const std::vector<std::byte> bytes = draw_matrix(random, PanelLayout(format, outputs, inputs));
      const PackedMatrix whole{bytes.data(), outputs, inputs, format};
      for (int round = 0; round < 4; ++round) {
        const auto cut = [&](std::int64_t end) {
          return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(end));
        };
        WeightPart part{.outputs = {}, .inputs = {0, inputs}, .whole_outputs = outputs, .whole_inputs = inputs};
        for (int run = 0; run < 1 + round % 3; ++run) {
          const std::int64_t begin = cut(outputs);
          part.outputs.push_back({begin, begin + 1 + cut(outputs - begin)});
        }
        const std::int64_t unit = is_quantised(format) ? format.group : 1;
        if (format.input != LinearInput::int8_rotated && unit > 0 && round > 0) {
          part.inputs.begin = cut(inputs) / unit * unit;
          part.inputs.end = std::min(inputs, part.inputs.begin + unit * (1 + cut(inputs)));
        }
        expect_part(whole, part);
      }
    }
  }
}

TEST(MatrixPart, InputsAreCutAtGroupsOnly) {
  EXPECT_TRUE(can_cut_inputs(formats::bf16, 100, {3, 50}));
  EXPECT_FALSE(can_cut_inputs(formats::int8, 100, {0, 50}));
  EXPECT_TRUE(can_cut_inputs(formats::int8, 100, {0, 100}));
  EXPECT_TRUE(can_cut_inputs(formats::int4, 100, {32, 96}));
  EXPECT_TRUE(can_cut_inputs(formats::int4, 100, {64, 100}));
  EXPECT_FALSE(can_cut_inputs(formats::int4, 100, {0, 40}));
  EXPECT_FALSE(can_cut_inputs(formats::int4, 100, {40, 100}));
  EXPECT_TRUE(can_cut_inputs(formats::int8_rotated, 100, {0, 100}));
  EXPECT_FALSE(can_cut_inputs(formats::int8_rotated, 128, {0, 64}));
}

TEST(MatrixPart, WhatIsNotInTheMatrixIsRefused) {
  const PanelLayout layout(formats::f32, 20, 8);
  const std::vector<std::byte> bytes(static_cast<std::size_t>(layout.total_bytes()));
  const PackedMatrix whole{bytes.data(), 20, 8, formats::f32};
  std::vector<std::byte> room(static_cast<std::size_t>(PanelLayout(formats::f32, 4, 8).total_bytes()));
  EXPECT_NO_THROW(copy_part(whole, {{{16, 20}}, {0, 8}, 20, 8}, room));
  for (const WeightPart& part :
       {WeightPart{{{17, 21}}, {0, 8}, 20, 8}, WeightPart{{{-1, 3}}, {0, 8}, 20, 8},
        WeightPart{{{0, 4}}, {1, 9}, 20, 8}, WeightPart{{{0, 4}}, {0, 8}, 21, 8}, WeightPart{{{0, 17}}, {0, 8}, 20, 8}})
    EXPECT_THROW(copy_part(whole, part, room), Error);
}

}  // namespace
}  // namespace lamella::testing
