#include <gtest/gtest.h>

#include "lamella/error.h"
#include "store/row_map.h"

namespace lamella::testing {
namespace {

const WeightDeclaration query = {.id = {Slot::query, 0}, .rows = 12, .columns = 5};

io::TensorEntry tensor(std::vector<std::int64_t> shape) { return {.name = "t", .shape = std::move(shape)}; }

std::vector<std::int64_t> sources(const RowMap& map) {
  std::vector<std::int64_t> rows;
  for (std::int64_t row = 0; row < map.rows(); ++row) rows.push_back(map.source_row(row));
  return rows;
}

TEST(RowMap, TakesRowsInOrder) {
  const RowMap map(query, {.weight = "query", .tensor = "t"}, tensor({12, 5}));
  EXPECT_EQ(sources(map), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
}

TEST(RowMap, CutsAPartOfEveryGroup) {
  // GPT-NeoX: three heads of four rows, q, k and v of each head together; this is k.
  const RowMap map(query, {.weight = "query", .tensor = "t", .groups = 3, .parts = 3, .part = 1}, tensor({36, 5}));
  EXPECT_EQ(sources(map), (std::vector<std::int64_t>{4, 5, 6, 7, 16, 17, 18, 19, 28, 29, 30, 31}));
}

TEST(RowMap, UndoesRotaryPairs) {
  // Two heads of six rows; GGUF stores 0, 3, 1, 4, 2, 5 of each.
  const RowMap map(query, {.weight = "query", .tensor = "t", .rotary_pair_heads = 2}, tensor({12, 5}));
  EXPECT_EQ(sources(map), (std::vector<std::int64_t>{0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11}));
}

TEST(RowMap, SeesVectorsAsOneColumn) {
  const WeightDeclaration bias = {.id = {Slot::query_bias, 0}, .rows = 1, .columns = 4};
  const RowMap map(bias, {.weight = "query_bias", .tensor = "t", .parts = 3, .part = 2}, tensor({12}));
  EXPECT_EQ(sources(map), (std::vector<std::int64_t>{8, 9, 10, 11}));
}

TEST(RowMap, A8_RefusesOtherShapesNamingExpectedAndFound) {
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{12, 6}, {5, 12}, {60}, {1, 12, 5}}) {
    try {
      RowMap(query, {.weight = "query", .tensor = "t"}, tensor(shape));
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_checkpoint);
      EXPECT_NE(std::string(error.what()).find("[12, 5]"), std::string::npos) << error.what();
    }
  }
  EXPECT_NO_THROW(RowMap(query, {.weight = "query", .tensor = "t", .transposed = true}, tensor({5, 12})));
}

}  // namespace
}  // namespace lamella::testing
