#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "lamella/error.h"
#include "runtime/step_input.h"

namespace lamella::testing {
namespace {

TEST(StepInput, IsOneFlatArrayWithEveryPartInItsPlace) {
  StepInput step(3, 2, 1, 4);
  const char* const names[] = {"token_ids", "positions",    "rope_lengths", "token_types",
                               "sequences", "block_tables", "row_indices"};
  const std::size_t sizes[] = {3, 3, 3, 3, 2 * 2, 2 * 4, 1};
  const std::int32_t* next = step.named("token_ids").data();
  for (std::size_t i = 0; i < std::size(names); ++i) {
    EXPECT_EQ(step.named(names[i]).size(), sizes[i]) << names[i];
    EXPECT_EQ(step.named(names[i]).data(), next) << names[i];
    next += sizes[i];
  }
  step.row_indices()[0] = 9;
  EXPECT_EQ(next[-1], 9);
  step.token_ids()[0] = 5;
  EXPECT_EQ(step.named("token_ids")[0], 5);
  EXPECT_THROW(static_cast<void>(step.named("logits")), Error);
}

TEST(StepInput, HasABlockTableForEveryKvGroup) {
  StepInput step(3, 2, 1, 4, 2);
  EXPECT_EQ(step.block_tables().size(), 2U * 2 * 4);
  const std::vector<std::int32_t> full = {3, 4, 5, 6, 7}, window = {-1, 9};
  step.set_blocks(0, 1, full);
  step.set_blocks(1, 0, window);
  EXPECT_EQ(step.named("block_tables.1").data(), step.named("block_tables").data() + 8);
  EXPECT_TRUE(std::ranges::equal(step.named("block_tables"), std::vector{0, 0, 0, 0, 3, 4, 5, 6}));
  EXPECT_TRUE(std::ranges::equal(step.named("block_tables.1"), std::vector{0, 9, 0, 0, 0, 0, 0, 0}));
  EXPECT_THROW(static_cast<void>(step.named("block_tables.2")), Error);
}

TEST(StepInput, ShapeSumsWhatTokensSee) {
  StepInput step(3, 2, 1, 1);
  step.positions()[0] = 7;  // one token of a sequence that holds 8
  step.positions()[1] = 0;
  step.positions()[2] = 1;
  step.sequences()[1] = 1;
  step.sequences()[2] = 1;
  step.sequences()[3] = 2;
  EXPECT_EQ(step.shape().attended, 8 + 1 + 2);
  EXPECT_EQ(step.shape().kv_tokens, 8 + 2);
}

}  // namespace
}  // namespace lamella::testing
