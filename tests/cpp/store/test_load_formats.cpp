// Loading in every arrangement that recipes know, into every format, on odd shapes, against a straightforward
// reference: expand the whole tensor, pick each number by the recipe's definition, quantise the rows, read them back.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/float_bits.h"
#include "formats.h"
#include "io/expand.h"
#include "packed.h"
#include "rank_weights.h"
#include "store/gguf_codes.h"
#include "store/load_weights.h"

namespace lamella::testing {
namespace {

using io::StorageType;

struct Problem {
  std::int64_t rows, columns;
  WeightSource source;
  StorageType stored = StorageType::f32;
};

std::vector<Problem> problems() {
  const auto from = [](WeightSource source) {
    source.weight = "query";
    source.tensor = "t";
    return source;
  };
  std::vector<Problem> all;
  for (const StorageType type : {StorageType::f32, StorageType::bf16, StorageType::f16}) {
    all.push_back({1, 1, from({}), type});
    all.push_back({37, 45, from({}), type});
    all.push_back({150, 33, from({.transposed = true}), type});
    all.push_back({70, 45, from({.transposed = true, .parts = 3, .part = 1}), type});  // GPT-2's c_attn
    all.push_back({60, 45, from({.groups = 5, .parts = 3, .part = 2}), type});         // GPT-NeoX: heads of q, k, v
    all.push_back({96, 45, from({.rotary_pair_heads = 4}), type});
    all.push_back({48, 45, from({.transposed = true, .groups = 4, .parts = 2}), type});
  }
  for (const StorageType type : {StorageType::q4_0, StorageType::q4_1, StorageType::q8_0, StorageType::q5_1}) {
    all.push_back({37, 96, from({}), type});
    all.push_back({96, 64, from({.rotary_pair_heads = 2}), type});
    all.push_back({48, 32, from({.groups = 3, .parts = 2, .part = 1}), type});
    all.push_back({64, 40, from({.transposed = true, .parts = 3, .part = 1}), type});
  }
  for (const StorageType type : {StorageType::q4_k, StorageType::q6_k}) all.push_back({33, 512, from({}), type});
  // Larger than a read and than a strip: several tasks each.
  all.push_back({2100, 301, from({.groups = 7, .parts = 3, .part = 1}), StorageType::f32});
  all.push_back({2100, 3001, from({.transposed = true}), StorageType::f16});
  return all;
}

/// A file of random numbers (or random blocks whose fp16 fields are finite and small) with one tensor over it.
class Loaded {
 public:
  explicit Loaded(const Problem& problem)
      : problem_(problem),
        path_(std::filesystem::temp_directory_path() / ("lamella_formats_" + std::to_string(::getpid()))) {
    const io::StorageTraits& layout = io::traits(problem.stored);
    const std::int64_t source_rows = problem.rows * problem.source.parts;
    const auto count = static_cast<std::size_t>(source_rows * problem.columns);
    std::vector<std::byte> bytes(count / layout.elements * layout.bytes);
    std::mt19937 random(31);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < bytes.size(); i += layout.bytes) {
      if (layout.elements > 1) {
        for (std::size_t b = 0; b < layout.bytes; ++b) bytes[i + b] = static_cast<std::byte>(random());
        const std::size_t halves = problem.stored == StorageType::q6_k ? layout.bytes - 2 : 0;
        for (const std::size_t b : {halves + 1, halves == 0 ? 3 : halves + 1}) bytes[i + b] &= std::byte{0x2f};
        continue;
      }
      const float value = normal(random);
      const auto narrow = problem.stored == StorageType::f16 ? f16_from_f32(value) : bf16_from_f32(value);
      if (layout.bytes == 4) std::memcpy(&bytes[i], &value, 4);
      else std::memcpy(&bytes[i], &narrow, 2);
    }
    numbers_.resize(count);
    io::expand_row_range_to_f32(problem.stored, bytes, numbers_);
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    table_.files = {std::make_shared<io::File>(path_)};
    table_.tensors = {{.name = "t",
                       .bytes = bytes.size(),
                       .type = problem.stored,
                       .shape = problem.source.transposed ? std::vector{problem.columns, source_rows}
                                                          : std::vector{source_rows, problem.columns}}};
  }
  ~Loaded() { std::filesystem::remove(path_); }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;

  [[nodiscard]] ResidentWeights load(const WeightFormat& format, int threads) const {
    ResidentWeights weights(
        {{.id = {Slot::query, -1}, .rows = problem_.rows, .columns = problem_.columns, .format = format}});
    ThreadTeam team(threads);
    io::PreadReader reader;
    load_weights(only(weights), {problem_.source}, table_, reader, team);
    return weights;
  }

  /// The weight's numbers, by the words of load_recipe.h.
  [[nodiscard]] std::vector<float> expected() const {
    const WeightSource& source = problem_.source;
    const std::int64_t rows = problem_.rows, columns = problem_.columns, source_rows = rows * source.parts;
    std::vector<float> values;
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t rows_per_part = rows / source.groups;
      std::int64_t from =
          row / rows_per_part * source.parts * rows_per_part + source.part * rows_per_part + row % rows_per_part;
      if (source.rotary_pair_heads > 0) {
        const std::int64_t dim = rows / source.rotary_pair_heads, head = row / dim, i = row % dim;
        from = head * dim + (i < dim / 2 ? 2 * i : 2 * (i - dim / 2) + 1);
      }
      for (std::int64_t column = 0; column < columns; ++column)
        values.push_back(numbers_[static_cast<std::size_t>(source.transposed ? column * source_rows + from
                                                                             : from * columns + column)]);
    }
    return values;
  }

 private:
  Problem problem_;
  std::filesystem::path path_;
  io::TensorTable table_;
  std::vector<float> numbers_;
};

/// What the format makes of the numbers.
std::vector<float> in_format(std::vector<float> values, const Problem& problem, const WeightFormat& format) {
  if (is_quantised(format)) {
    CodedRows codes;
    quantise_rows(values, problem.rows, problem.columns, format, Rounding::clip_search, codes);
    OwnedMatrix matrix(problem.rows, problem.columns, format);
    pack_codes(matrix.room, 0, codes);
    return matrix.unpacked();
  }
  for (float& value : values) {
    if (format.element == Element::bf16) value = f32_from_bf16(bf16_from_f32(value));
    if (format.element == Element::f16) value = f32_from_f16(f16_from_f32(value));
  }
  return values;
}

std::string describe(const Problem& problem, const WeightFormat& format) {
  return std::string(io::traits(problem.stored).name) + " " + std::to_string(problem.rows) + "x" +
         std::to_string(problem.columns) + (problem.source.transposed ? " transposed" : "") + " as " +
         to_string(format);
}

TEST(LoadFormats, EveryArrangementInEveryFormatIsTheReferences) {
  for (const Problem& problem : problems()) {
    const Loaded loaded(problem);
    const std::vector<float> numbers = loaded.expected();
    const bool large = problem.rows > 2000;
    for (const WeightFormat& format : large ? std::vector{formats::bf16, formats::int8} : all_formats()) {
      if (problem.stored == StorageType::q4_k && keeps_codes(problem.stored, format)) continue;  // test_gguf_codes.cpp
      const bool kept = !problem.source.transposed && keeps_codes(problem.stored, format);
      const std::vector<float> expected = kept ? numbers : in_format(numbers, problem, format);
      const ResidentWeights weights = loaded.load(format, 2);
      ASSERT_EQ(OwnedMatrix::unpack(weights.matrix({Slot::query, -1})), expected) << describe(problem, format);
    }
  }
}

TEST(LoadFormats, ThreadsChangeNoByte) {
  for (const Problem& problem : problems()) {
    const Loaded loaded(problem);
    for (const WeightFormat& format : {formats::bf16, formats::int8, formats::int4, formats::q4_1}) {
      const ResidentWeights one = loaded.load(format, 1);
      for (const int threads : {2, 3, 4}) {
        const ResidentWeights many = loaded.load(format, threads);
        ASSERT_TRUE(std::ranges::equal(one.bytes({Slot::query, -1}), many.bytes({Slot::query, -1})))
            << describe(problem, format) << ", " << threads << " threads";
      }
    }
  }
}

TEST(LoadFormats, VectorsAreCutToo) {
  const auto path = std::filesystem::temp_directory_path() / ("lamella_vector_" + std::to_string(::getpid()));
  const std::vector<float> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(values.data()), 48);
  io::TensorTable table;
  table.files = {std::make_shared<io::File>(path)};
  table.tensors = {{.name = "t", .bytes = 48, .type = StorageType::f32, .shape = {12}}};
  ResidentWeights weights({{.id = {Slot::query_bias, 0}, .rows = 1, .columns = 4}});
  ThreadTeam team(2);
  io::PreadReader reader;
  load_weights(only(weights), {{.weight = "layers.0.query_bias", .tensor = "t", .groups = 2, .parts = 3, .part = 2}},
               table, reader, team);
  const float* bias = weights.vector({Slot::query_bias, 0});
  EXPECT_EQ(std::vector<float>(bias, bias + 4), (std::vector<float>{4, 5, 10, 11}));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace lamella::testing
