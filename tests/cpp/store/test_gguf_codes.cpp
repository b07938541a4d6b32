// GGUF blocks taken over code by code, against their expansion to floats.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/float_bits.h"
#include "io/expand.h"
#include "packed.h"
#include "store/gguf_codes.h"

namespace lamella::testing {
namespace {

using io::StorageType;

struct Stored {
  std::vector<std::byte> bytes;
  std::vector<float> values;
};

/// Rows of random blocks whose fp16 fields are numbers.
Stored random_rows(std::mt19937& random, StorageType type, std::int64_t rows, std::int64_t width) {
  const io::StorageTraits& layout = io::traits(type);
  Stored stored{std::vector<std::byte>(static_cast<std::size_t>(rows * width / layout.elements * layout.bytes)),
                std::vector<float>(static_cast<std::size_t>(rows * width))};
  const std::size_t halves = type == StorageType::q4_1 || type == StorageType::q4_k ? 2 : 1;
  for (std::size_t i = 0; i < stored.bytes.size(); ++i) {
    stored.bytes[i] = static_cast<std::byte>(random());
    const std::size_t in_block = i % layout.bytes;
    if (in_block < 2 * halves && in_block % 2 == 1) stored.bytes[i] &= std::byte{0xaf};  // finite, either sign
  }
  io::expand_row_range_to_f32(type, stored.bytes, stored.values);
  return stored;
}

OwnedMatrix& take(OwnedMatrix& matrix, StorageType type, const Stored& stored) {
  CodedRows codes;
  codes.resize(matrix.room.format, matrix.room.outputs, matrix.room.inputs);
  const std::size_t row_bytes = stored.bytes.size() / static_cast<std::size_t>(matrix.room.outputs);
  for (std::int64_t row = 0; row < matrix.room.outputs; ++row)
    EXPECT_TRUE(take_codes(type, stored.bytes.data() + static_cast<std::size_t>(row) * row_bytes, row, codes));
  pack_codes(matrix.room, 0, codes);
  return matrix;
}

TEST(GgufCodes, Q4_0Q4_1AndQ8_0AreKeptBitForBit) {
  std::mt19937 random(4);
  for (const StorageType type : {StorageType::q4_0, StorageType::q4_1, StorageType::q8_0}) {
    const Stored stored = random_rows(random, type, 37, 160);
    OwnedMatrix matrix(37, 160, kept_format(type).value());
    const std::vector<float> found = take(matrix, type, stored).unpacked();
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_EQ(std::bit_cast<std::uint32_t>(found[i]), std::bit_cast<std::uint32_t>(stored.values[i]))
          << io::traits(type).name << " " << i;
  }
}

TEST(GgufCodes, Q4_KKeepsItsCodesAndRoundsItsScales) {
  std::mt19937 random(5);
  const Stored stored = random_rows(random, StorageType::q4_k, 20, 512);
  OwnedMatrix matrix(20, 512, kept_format(StorageType::q4_k).value());
  const std::vector<float> found = take(matrix, StorageType::q4_k, stored).unpacked();
  // value = s c - m: both s and m are off by at most 2^-11 of themselves.
  for (std::size_t group = 0; group < found.size(); group += 32) {
    float most = 0.0F, least = INFINITY;
    for (std::size_t i = group; i < group + 32; ++i) {
      most = std::max(most, std::fabs(stored.values[i]));
      least = std::min(least, stored.values[i]);
    }
    for (std::size_t i = group; i < group + 32; ++i)
      ASSERT_NEAR(found[i], stored.values[i], 0x1p-10F * (2.0F * most + std::fabs(least)) + 1e-7F) << i;
  }
}

TEST(GgufCodes, A7_ScalesThatAreNoNumbersAreNoticed) {
  for (const StorageType type : {StorageType::q4_0, StorageType::q4_1, StorageType::q8_0, StorageType::q4_k}) {
    for (const std::uint16_t bad : {0x7c00, 0xfc00, 0x7e01}) {
      std::vector<std::byte> block(io::traits(type).bytes);
      std::memcpy(block.data(), &bad, sizeof bad);
      CodedRows codes;
      codes.resize(kept_format(type).value(), 1, io::traits(type).elements);
      EXPECT_FALSE(take_codes(type, block.data(), 0, codes)) << io::traits(type).name;
    }
  }
}

TEST(GgufCodes, OnlyFourTypesAreKept) {
  for (int type = 0; type <= static_cast<int>(StorageType::q6_k); ++type) {
    const auto stored = static_cast<StorageType>(type);
    const bool kept = stored == StorageType::q4_0 || stored == StorageType::q4_1 || stored == StorageType::q8_0 ||
                      stored == StorageType::q4_k;
    EXPECT_EQ(kept_format(stored).has_value(), kept) << io::traits(stored).name;
  }
  EXPECT_TRUE(keeps_codes(StorageType::q4_0, formats::int4_a8));
  EXPECT_FALSE(keeps_codes(StorageType::q4_1, formats::int4));
}

}  // namespace
}  // namespace lamella::testing
