#include <gtest/gtest.h>

#include <random>

#include "runtime/scheduler.h"

namespace lamella::testing {
namespace {

Request request(std::size_t prompt, std::int64_t max_tokens) {
  return {.prompt = std::vector<std::int32_t>(prompt, 1), .sampling = {.max_tokens = max_tokens}};
}

/// What the engine does after a step, with token 2 for every sequence that samples.
void commit(Scheduler& scheduler, const std::vector<Scheduled>& parts) {
  for (const Scheduled& part : parts) {
    part.sequence->cached += part.tokens;
    if (!part.samples) continue;
    part.sequence->tokens.push_back(2);
    const auto generated = static_cast<std::int64_t>(part.sequence->tokens.size()) - part.sequence->prompt_tokens;
    if (generated >= part.sequence->sampling.max_tokens) scheduler.finish(*part.sequence, FinishReason::length);
  }
}

TEST(Scheduler, CutsLongPromptsAndLetsGenerationGoFirst) {
  KvBlockPool pool(100);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 10, .max_model_len = 100}, pool);
  scheduler.add(request(4, 5), 0);
  commit(scheduler, scheduler.next());
  scheduler.add(request(25, 5), 0);
  const std::vector<Scheduled> parts = scheduler.next();
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_EQ(parts[0].tokens, 1);
  EXPECT_TRUE(parts[0].samples);
  EXPECT_EQ(parts[1].tokens, 9);
  EXPECT_FALSE(parts[1].samples);
}

TEST(Scheduler, AdmitsInOrderOfArrivalWhileBlocksLast) {
  KvBlockPool pool(3);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 100, .max_model_len = 100}, pool);
  scheduler.add(request(10, 6), 0);   // one block
  scheduler.add(request(30, 10), 0);  // three: must wait
  scheduler.add(request(1, 1), 0);    // would fit, but waits its turn
  EXPECT_EQ(scheduler.next().size(), 1U);
  EXPECT_EQ(scheduler.waiting(), 2);
}

TEST(Scheduler, ASequenceWithoutATokenToComputeIsABrokenInvariant) {
  KvBlockPool pool(3);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 100, .max_model_len = 100}, pool);
  scheduler.add(request(10, 6), 0);
  scheduler.next().front().sequence->cached = 10;  // and no token came of it
  EXPECT_THROW(static_cast<void>(scheduler.next()), Error);
}

TEST(Scheduler, StepInputPlacesEveryToken) {
  KvBlockPool pool(10);
  Scheduler scheduler({.max_num_seqs = 2, .max_num_batched_tokens = 40, .max_model_len = 100}, pool);
  scheduler.add(request(20, 2), 0);
  scheduler.add(request(3, 2), 0);
  const std::vector<Scheduled> parts = scheduler.next();
  StepInput step = scheduler.step_input(parts);
  EXPECT_EQ(step.tokens(), 23);
  EXPECT_EQ(step.kv_blocks(), 2);
  EXPECT_EQ(step.positions()[19], 19);
  EXPECT_EQ(step.positions()[20], 0);
  EXPECT_EQ(step.rope_lengths()[0], 20);
  EXPECT_EQ(step.rope_lengths()[22], 3);
  EXPECT_EQ(step.sequences()[2], 20);
  EXPECT_EQ(step.sequences()[3], 3);
  EXPECT_EQ(step.row_indices()[0], 19);
  EXPECT_EQ(step.row_indices()[1], 22);
  EXPECT_EQ(step.block_tables()[1], parts[0].sequence->blocks[1]);
}

TEST(Scheduler, RandomLoadsEndWithNothingLeftOver) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto draw = [&](int least, int most) { return std::uniform_int_distribution(least, most)(random); };
  for (int round = 0; round < 200; ++round) {
    KvBlockPool pool(draw(8, 30));
    const SchedulerLimits limits{
        .max_num_seqs = draw(1, 5), .max_num_batched_tokens = draw(5, 20), .max_model_len = 128};
    Scheduler scheduler(limits, pool);
    std::vector<RequestId> ids;
    for (int i = draw(1, 12); i > 0; --i)
      ids.push_back(scheduler.add(request(static_cast<std::size_t>(draw(1, 60)), draw(1, 60)), 0));
    int steps = 0;
    for (std::vector<Scheduled> parts = scheduler.next(); !parts.empty(); parts = scheduler.next()) {
      std::int64_t tokens = 0;
      for (const Scheduled& part : parts) tokens += part.tokens;
      ASSERT_LE(tokens, limits.max_num_batched_tokens);
      ASSERT_LE(scheduler.running(), limits.max_num_seqs);
      static_cast<void>(scheduler.step_input(parts));
      if (draw(0, 20) == 0) {
        scheduler.finish(*parts.back().sequence, FinishReason::cancelled);
        parts.pop_back();
      }
      commit(scheduler, parts);
      ASSERT_LT(++steps, 10000);
    }
    EXPECT_EQ(pool.used(), 0);
    EXPECT_EQ(scheduler.waiting() + scheduler.running(), 0);
    for (const RequestId id : ids) {
      ASSERT_NE(scheduler.find(id), nullptr);
      EXPECT_NE(scheduler.find(id)->reason, FinishReason::running);
      scheduler.forget(id);
      EXPECT_EQ(scheduler.find(id), nullptr);
    }
  }
}

}  // namespace
}  // namespace lamella::testing
