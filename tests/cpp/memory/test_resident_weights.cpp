#include <gtest/gtest.h>

#include <limits>

#include "lamella/error.h"
#include "memory/resident_weights.h"
#include "specs.h"

namespace lamella::testing {
namespace {

std::vector<WeightDeclaration> declared_as(const ModelSpec& spec, const WeightFormat& format) {
  std::vector<WeightDeclaration> declared = declare_weights(spec);
  for (WeightDeclaration& weight : declared)
    if (!is_vector(weight.id.slot)) weight.format = format;
  return declared;
}

TEST(ResidentWeights, KeepsVectorsInFp32AndMatricesInPanelsAndEverythingAligned) {
  for (const WeightFormat& format : {formats::bf16, formats::int8, formats::int4, formats::q4_1}) {
    const ResidentWeights weights(declared_as(gpt2_like(), format));
    for (const WeightDeclaration& weight : weights.declarations()) {
      const std::span<std::byte> bytes = weights.bytes(weight.id);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bytes.data()) % 64, 0U);
      if (is_vector(weight.id.slot)) {
        EXPECT_EQ(bytes.size(), static_cast<std::size_t>(weight.columns) * sizeof(float));
        EXPECT_EQ(static_cast<const void*>(weights.vector(weight.id)), bytes.data());
        EXPECT_THROW(static_cast<void>(weights.matrix(weight.id)), Error);
      } else {
        const PackedMatrix matrix = weights.matrix(weight.id);
        EXPECT_EQ(bytes.size(), static_cast<std::size_t>(matrix.layout().total_bytes())) << to_string(weight.id);
        EXPECT_EQ(matrix.data, bytes.data());
        EXPECT_EQ(matrix.format, format);
        EXPECT_THROW(static_cast<void>(weights.vector(weight.id)), Error);
      }
    }
  }
}

TEST(ResidentWeights, PlannedBytesAreTakenBytes) {
  for (const WeightFormat& format : {formats::f32, formats::int8_weight_only, formats::q8_0}) {
    const std::vector<WeightDeclaration> declared = declared_as(llama_like(), format);
    EXPECT_EQ(ResidentWeights::planned_bytes(declared), ResidentWeights(declared).total_bytes());
  }
}

TEST(ResidentWeights, OverflowingShapesAreRefused) {
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  for (const auto& [rows, columns] : {std::pair{std::int64_t{1} << 40, std::int64_t{1} << 40},
                                      {largest, std::int64_t{1}},
                                      {std::int64_t{1}, largest}}) {
    const std::vector<WeightDeclaration> absurd = {
        {.id = {Slot::token_embedding, -1}, .rows = rows, .columns = columns, .segment = Segment::embedding}};
    EXPECT_THROW(ResidentWeights{absurd}, Error);
  }
}

TEST(ResidentWeights, FormatsThatNoKernelReadsAreRefused) {
  EXPECT_THROW(ResidentWeights(declared_as(llama_like(), {.element = Element::i4})), Error);
}

}  // namespace
}  // namespace lamella::testing
