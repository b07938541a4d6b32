#include "runtime/micro_batches.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lamella/error.h"

namespace lamella {
namespace {

TEST(MicroBatches, TimesAreLearntFromSteps) {
  StepTimesFit fit;
  EXPECT_EQ(fit.times().fixed_s + fit.times().token_s, 0.0);
  fit.add(8, 0.5);
  EXPECT_DOUBLE_EQ(fit.times().fixed_s, 0.5);  // one size tells nothing of what a token adds
  for (const std::int64_t tokens : {1, 16, 64, 128, 8}) fit.add(tokens, 0.3 + 0.01 * static_cast<double>(tokens));
  for (int i = 0; i < 600; ++i) fit.add(1 + i % 64, 0.3 + 0.01 * (1 + i % 64));
  EXPECT_NEAR(fit.times().fixed_s, 0.3, 1e-3);
  EXPECT_NEAR(fit.times().token_s, 0.01, 1e-4);
  StepTimesFit falling;  // noise must not make a token's time negative, nor a step's
  falling.add(1, 1.0);
  falling.add(100, 0.9);
  EXPECT_EQ(falling.times().token_s, 0.0);
  StepTimesFit steep;
  steep.add(10, 0.1);
  steep.add(100, 10.0);
  EXPECT_EQ(steep.times().fixed_s, 0.0);
}

TEST(MicroBatches, PromptsTakeMoreWhereTokensDecideAndGenerationAsManyAsStages) {
  // Tokens decide: small pieces, whose pipeline fills soonest.
  EXPECT_EQ(choose_micro_batches(4, 4096, 64, {.fixed_s = 1e-4, .token_s = 1e-3}, 0.0).prompt, most_micro_batches);
  // What does not depend on tokens decides: one piece.
  EXPECT_EQ(choose_micro_batches(4, 64, 64, {.fixed_s = 1.0, .token_s = 1e-6}, 0.0), (MicroBatches{1, 4}));
  // sqrt((stages - 1) * tokens * token_s / fixed_s) = sqrt(3 * 300 / 100) = 3.
  EXPECT_EQ(choose_micro_batches(4, 300, 8, {.fixed_s = 1e-1, .token_s = 1e-3}, 0.0).prompt, 3);
  for (int stages = 2; stages <= 6; ++stages) {
    const MicroBatches chosen = choose_micro_batches(stages, 10'000, 60, {.fixed_s = 1e-2, .token_s = 1e-4}, 0.0);
    EXPECT_EQ(chosen.generation, stages);
    EXPECT_GE(chosen.prompt, chosen.generation);
    // What the loop needs between two tokens is hidden by one more.
    EXPECT_EQ(
        choose_micro_batches(stages, 10'000, 60 * (stages + 1), {.fixed_s = 1e-2, .token_s = 1e-6}, 1.5e-2).generation,
        stages + 1);
  }
}

TEST(MicroBatches, AreNeverMoreThanThereIsToShare) {
  EXPECT_EQ(choose_micro_batches(4, 2, 3, {.fixed_s = 0.0, .token_s = 1.0}, 0.0), (MicroBatches{2, 3}));
  EXPECT_EQ(choose_micro_batches(4, 0, 0, {}, 0.0), (MicroBatches{1, 1}));
  EXPECT_EQ(choose_micro_batches(4, 100, 100, {}, 0.0), (MicroBatches{4, 4}));
}

TEST(MicroBatches, APromptsPiecesStayAsLongAsTheyWere) {
  MicroBatching batching(2, 4, {.prompt_micro_batches = 4, .generation_micro_batches = 2});
  std::int64_t left = 1000;
  for (int piece = 0; piece < 4; ++piece) {
    const StepShare share = batching.next({.prompt_tokens = left, .sequences = 6}, {}, 0.0);
    EXPECT_EQ(share.generating, 3);
    EXPECT_EQ(share.tokens, 3 + 250);
    left -= 250;
  }
  EXPECT_EQ(batching.next({.prompt_tokens = 0, .sequences = 7}, {}, 0.0).tokens, 4);
  EXPECT_EQ(batching.next({.prompt_tokens = 0, .sequences = 7, .generation_in_flight = 1}, {}, 0.0).generating, 4);
  EXPECT_EQ(batching.next({.prompt_tokens = 0, .sequences = 7, .generation_in_flight = 2}, {}, 0.0).generating, 0);
  EXPECT_EQ(batching.next({.prompt_tokens = 80, .sequences = 0}, {}, 0.0).tokens, 20);  // a new one's own
}

TEST(MicroBatches, SchedulesToCompareWithHaveOneCount) {
  MicroBatching single(3, 8, {.schedule = PipelineSchedule::single, .prompt_micro_batches = 6});
  EXPECT_EQ(single.next({.prompt_tokens = 600, .sequences = 12}, {}, 0.0).tokens, 2 + 100);
  EXPECT_FALSE(single.drains());
  MicroBatching training(3, 8, {.schedule = PipelineSchedule::training});
  EXPECT_EQ(training.next({.prompt_tokens = 0, .sequences = 12}, {}, 0.0).generating, 4);
  EXPECT_TRUE(training.drains());
}

TEST(MicroBatches, CountsOutsideTheirRangeAreRefused) {
  EXPECT_NO_THROW(validate(PipelineOptions{.prompt_micro_batches = 16, .generation_micro_batches = 1}));
  EXPECT_THROW(validate(PipelineOptions{.prompt_micro_batches = 17}), Error);
  EXPECT_THROW(validate(PipelineOptions{.generation_micro_batches = -1}), Error);
  EXPECT_THROW(validate(PipelineOptions{
                   .schedule = PipelineSchedule::single, .prompt_micro_batches = 3, .generation_micro_batches = 2}),
               Error);
}

}  // namespace
}  // namespace lamella
