// Loading from a real file on disk, in every arrangement that recipes know, and when the file is bad.
#include <gtest/gtest.h>
#include <unistd.h>

#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>

#include "lamella/error.h"
#include "packed.h"
#include "rank_weights.h"
#include "store/load_weights.h"

namespace lamella::testing {
namespace {

constexpr std::int64_t rows = 6, columns = 4;

/// A file of `values` and a table with one tensor "t" over it.
class LoadWeights : public ::testing::Test {
 protected:
  LoadWeights() : path_(std::filesystem::temp_directory_path() / ("lamella_load_" + std::to_string(::getpid()))) {}
  ~LoadWeights() override { std::filesystem::remove(path_); }

  void write(const std::vector<float>& values, std::vector<std::int64_t> shape) {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(float)));
    table_.files = {std::make_shared<io::File>(path_)};
    table_.tensors = {
        {.name = "t", .bytes = values.size() * sizeof(float), .type = io::StorageType::f32, .shape = std::move(shape)}};
  }

  std::vector<float> load(const WeightSource& source, const WeightFormat& format = formats::f32) {
    ResidentWeights weights({{.id = {Slot::query, -1}, .rows = rows, .columns = columns, .format = format}});
    ThreadTeam team(3);
    io::PreadReader reader;
    load_weights(only(weights), {source}, table_, reader, team);
    return OwnedMatrix::unpack(weights.matrix({Slot::query, -1}));
  }

  ErrorCode failure(const WeightSource& source) {
    try {
      load(source);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  }

  std::filesystem::path path_;
  io::TensorTable table_;
};

std::vector<float> counted(std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  return values;
}

TEST_F(LoadWeights, ReadsRowsAsTheyAre) {
  write(counted(24), {rows, columns});
  EXPECT_EQ(load({.weight = "query", .tensor = "t"}), counted(24));
}

TEST_F(LoadWeights, CutsTransposesAndReorders) {
  write(counted(72), {columns, 3 * rows});  // GPT-2's fused c_attn: [inputs][q, k, v]
  const std::vector<float> k = load({.weight = "query", .tensor = "t", .transposed = true, .parts = 3, .part = 1});
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c)
      EXPECT_EQ(k[static_cast<std::size_t>(r * columns + c)], static_cast<float>(c * 3 * rows + rows + r));

  write(counted(24), {rows, columns});
  const std::vector<float> ordered = load({.weight = "query", .tensor = "t", .rotary_pair_heads = 1});
  const std::vector<int> from = {0, 2, 4, 1, 3, 5};
  for (std::size_t r = 0; r < 6; ++r) EXPECT_EQ(ordered[r * 4], static_cast<float>(from[r] * 4));
}

TEST_F(LoadWeights, RoundsToNearestEvenBf16) {
  std::vector<float> values(24, 1.0F);
  values[0] = 1.0F + 0x1p-9F;             // half way to the next bf16: to even, down
  values[1] = 1.0F + 0x1p-8F + 0x1p-9F;   // wait for even: up to 1 + 2^-7 + ...
  values[2] = 1.0F + 0x1p-8F * 1.0001F;   // just above half way
  write(values, {rows, columns});
  const std::vector<float> loaded = load({.weight = "query", .tensor = "t"}, formats::bf16);
  EXPECT_EQ(loaded[0], 1.0F);
  EXPECT_EQ(loaded[1], 1.0F + 0x1p-7F);
  EXPECT_EQ(loaded[2], 1.0F + 0x1p-7F);
}

TEST_F(LoadWeights, A7_RefusesNaNAndInfinityNamingTensorAndRow) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const WeightFormat& format : {formats::f32, formats::bf16, formats::int8, formats::int4}) {
      for (const bool transposed : {false, true}) {
        std::vector<float> values = counted(24);
        values[13] = bad;
        write(values, transposed ? std::vector{columns, rows} : std::vector{rows, columns});
        try {
          load({.weight = "query", .tensor = "t", .transposed = transposed}, format);
          ADD_FAILURE() << "accepted as " << to_string(format);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::invalid_checkpoint);
          const std::string text = error.what();
          EXPECT_NE(text.find("\"t\""), std::string::npos) << text;
          EXPECT_NE(text.find(transposed ? "row 2" : "row 3"), std::string::npos) << text;
        }
      }
    }
  }
}

TEST_F(LoadWeights, A7_RefusesNumbersBeyondTheFormat) {
  for (const auto& [format, number] :
       {std::pair{formats::f16, 65520.0F}, {formats::q8_0, 65520.0F}, {formats::int4, -7e4F}}) {
    std::vector<float> values = counted(24);
    values[5] = number;
    write(values, {rows, columns});
    EXPECT_THROW(load({.weight = "query", .tensor = "t"}, format), Error) << to_string(format);
    EXPECT_NO_THROW(load({.weight = "query", .tensor = "t"}, formats::int8)) << to_string(format);
  }
}

TEST_F(LoadWeights, A7_RefusesNumbersThatBf16RoundsToInfinity) {
  std::vector<float> values = counted(24);
  values[5] = 3.4e38F;
  write(values, {rows, columns});
  EXPECT_EQ(load({.weight = "query", .tensor = "t"})[5], 3.4e38F);
  EXPECT_THROW(load({.weight = "query", .tensor = "t"}, formats::bf16), Error);
}

TEST_F(LoadWeights, A8_RefusesMissingTensorsAndMissingSources) {
  write(counted(24), {rows, columns});
  EXPECT_EQ(failure({.weight = "query", .tensor = "absent"}), ErrorCode::invalid_checkpoint);
  EXPECT_EQ(failure({.weight = "other", .tensor = "t"}), ErrorCode::invalid_checkpoint);
}

TEST_F(LoadWeights, G_AnInterruptEndsTheLoadOnAllThreads) {
  constexpr std::int64_t many = 6'000'000;  // many reads of each thread
  std::vector<float> values(many, 1.0F);
  write(values, {many / 6, 6});
  ResidentWeights weights({{.id = {Slot::query, -1}, .rows = many / 6, .columns = 6}});
  struct Interrupted : std::exception {};
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadTeam team(threads);
    io::PreadReader reader;
    int calls = 0;
    EXPECT_THROW(load_weights(only(weights), {{.weight = "query", .tensor = "t"}}, table_, reader, team,
                              [&](std::uint64_t done, std::uint64_t total) {
                                ASSERT_LT(done, total);
                                if (++calls == 2) throw Interrupted();
                              }),
                 Interrupted);
    EXPECT_EQ(calls, 2);
  }
}

TEST_F(LoadWeights, A11_AFileCutShortIsAnErrorNotASignal) {
  write(counted(24), {rows, columns});
  std::filesystem::resize_file(path_, 40);
  EXPECT_EQ(failure({.weight = "query", .tensor = "t"}), ErrorCode::checkpoint_changed);
}

}  // namespace
}  // namespace lamella::testing
