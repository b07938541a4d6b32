#include <gtest/gtest.h>

#include "lamella/error.h"
#include "memory/resident_weights.h"
#include "specs.h"

namespace lamella::testing {
namespace {

TEST(ResidentWeights, KeepsVectorsInFp32AndEverythingAligned) {
  const ModelSpec spec = gpt2_like();
  const ResidentWeights weights(declare_weights(spec), DataType::bf16);
  for (const WeightDeclaration& weight : weights.declarations()) {
    const std::span<std::byte> bytes = weights.bytes(weight.id);
    EXPECT_EQ(bytes.size(),
              static_cast<std::size_t>(weight.rows * weight.columns) * (is_vector(weight.id.slot) ? 4 : 2))
        << to_string(weight.id);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bytes.data()) % 64, 0U);
  }
}

TEST(ResidentWeights, PlannedBytesAreTakenBytes) {
  const std::vector<WeightDeclaration> declared = declare_weights(llama_like());
  EXPECT_EQ(ResidentWeights::planned_bytes(declared, DataType::f32),
            ResidentWeights(declared, DataType::f32).total_bytes());
}

TEST(ResidentWeights, OverflowingShapesAreRefused) {
  const std::vector<WeightDeclaration> absurd = {{.id = {Slot::token_embedding, -1},
                                                  .rows = std::int64_t{1} << 40,
                                                  .columns = std::int64_t{1} << 40,
                                                  .segment = Segment::embedding}};
  EXPECT_THROW(ResidentWeights(absurd, DataType::f32), Error);
}

}  // namespace
}  // namespace lamella::testing
