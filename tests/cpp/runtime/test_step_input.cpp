#include <gtest/gtest.h>

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
