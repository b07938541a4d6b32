#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "runtime/scheduler.h"

namespace lamella::testing {
namespace {

Outcome drew_two() {
  Outcome outcome;
  outcome.sampled.token = 2;
  return outcome;
}

/// A scheduler with sequences of its own; every step that samples yields token 2.
class SchedulerTest : public ::testing::Test {
 protected:
  void make(std::int64_t blocks, const SchedulerLimits& limits) {
    pool_ = std::make_unique<KvBlockPool>(blocks);
    scheduler_ = std::make_unique<Scheduler>(limits, *pool_, [this](std::span<const std::int32_t> scrubbed) {
      scrubbed_ += static_cast<std::int64_t>(scrubbed.size());
    });
  }
  static SchedulerLimits limits(std::int64_t sequences, std::int64_t tokens) {
    return {.max_num_seqs = sequences, .max_num_batched_tokens = tokens, .max_rows = sequences};
  }
  Sequence& add(std::size_t prompt, std::int64_t max_tokens, std::int32_t token = 1) {
    Sequence& sequence = sequences_.emplace_back(
        Request{.prompt = std::vector<std::int32_t>(prompt, token), .sampling = {.max_tokens = max_tokens}}, 0);
    sequence.arrival = ++arrivals_;
    scheduler_->add(sequence);
    return sequence;
  }
  std::vector<Part> launch() {
    std::vector<Part> parts;
    scheduler_->next(parts);
    scheduler_->launch(parts);
    return parts;
  }
  void commit(const std::vector<Part>& parts) {
    scheduler_->commit(parts, std::vector<Outcome>(parts.size(), drew_two()));
  }
  std::vector<Part> step() {
    const std::vector<Part> parts = launch();
    commit(parts);
    return parts;
  }

  std::unique_ptr<KvBlockPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  std::deque<Sequence> sequences_;
  RequestId arrivals_ = 0;
  std::int64_t scrubbed_ = 0;
};

TEST(RequestState, HasTheseEdgesAndNoOthers) {
  using enum RequestState;
  const std::vector<std::pair<RequestState, RequestState>> edges = {
      {waiting, running},   {waiting, finished},   {waiting, cancelled},   {waiting, failed},
      {running, preempted}, {running, finished},   {running, cancelled},   {running, failed},
      {preempted, running}, {preempted, finished}, {preempted, cancelled}, {preempted, failed}};
  for (const RequestState from : {waiting, running, preempted, finished, cancelled, failed})
    for (const RequestState to : {waiting, running, preempted, finished, cancelled, failed})
      EXPECT_EQ(may_follow(from, to), std::ranges::count(edges, std::pair(from, to)) == 1)
          << to_string(from) << " to " << to_string(to);
  for (const RequestState state : {waiting, running, preempted}) EXPECT_FALSE(is_final(state));
  for (const RequestState state : {finished, cancelled, failed}) EXPECT_TRUE(is_final(state));
}

TEST_F(SchedulerTest, CutsLongPromptsAndLetsGenerationGoFirst) {
  make(100, limits(4, 10));
  Sequence& first = add(4, 5);
  step();
  EXPECT_EQ(first.state, RequestState::running);
  add(25, 5);
  const std::vector<Part> parts = step();
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_EQ(parts[0].sequence, &first);
  EXPECT_EQ(parts[0].count, 1);
  EXPECT_TRUE(parts[0].samples);
  EXPECT_EQ(parts[1].count, 9);
  EXPECT_FALSE(parts[1].samples);
}

TEST_F(SchedulerTest, AdmitsInOrderOfArrivalWhileBlocksLast) {
  make(4, limits(4, 100));
  Sequence& first = add(10, 12);  // one block, and a second later
  Sequence& second = add(40, 6);  // three: all that are left, and one is to stay for the first
  Sequence& third = add(1, 6);    // would fit, but does not overtake
  EXPECT_EQ(step().size(), 1U);
  EXPECT_EQ(first.state, RequestState::running);
  EXPECT_EQ(second.state, RequestState::waiting);
  EXPECT_EQ(third.state, RequestState::waiting);
  for (int i = 0; i < 11; ++i) step();
  EXPECT_EQ(first.state, RequestState::finished);
  EXPECT_EQ(first.reason, FinishReason::length);
  step();
  EXPECT_EQ(second.state, RequestState::running);
}

TEST_F(SchedulerTest, KeepsNoBlockForThoseThatHaveAllTheyCanNeed) {
  make(4, limits(4, 100));
  add(10, 7);  // 16 tokens are computed at most
  Sequence& second = add(40, 6);
  step();
  EXPECT_EQ(second.state, RequestState::running);
}

TEST_F(SchedulerTest, PreemptsTheYoungestAndComputesItAgain) {
  make(4, limits(4, 100));
  Sequence& old = add(16, 40);
  Sequence& young = add(15, 40, 3);
  step();
  EXPECT_EQ(pool_->used(), 2);
  while (young.state == RequestState::running) step();
  EXPECT_EQ(young.state, RequestState::preempted);
  EXPECT_TRUE(young.held.groups[0].empty());
  const std::vector<std::int32_t> kept = young.tokens;
  EXPECT_GT(young.generated(), 15);
  while (old.state == RequestState::running) step();
  EXPECT_EQ(old.generated(), 40);
  const std::vector<Part> parts = step();
  ASSERT_EQ(parts.size(), 1U);
  EXPECT_EQ(parts[0].sequence, &young);
  EXPECT_EQ(static_cast<std::size_t>(parts[0].begin + parts[0].count), kept.size());
  EXPECT_TRUE(std::equal(kept.begin(), kept.end(), young.tokens.begin()));
  while (young.state == RequestState::running) step();
  EXPECT_EQ(young.generated(), 40);
  EXPECT_EQ(scheduler_->preemptions(), 1);
  EXPECT_EQ(pool_->used(), 0);
}

TEST_F(SchedulerTest, APromptKeepsTheBlocksThatItsWindowNeedsUntilItEnds) {
  SchedulerLimits windowed = limits(4, 16);
  windowed.retention = {.windows = {20}, .tokens_in_flight = 16};
  make(20, windowed);
  Sequence& prompt = add(150, 30);
  // The 19 tokens before a chunk and its 16 touch four blocks at most.
  for (int chunk = 0; chunk < 8; ++chunk) {
    EXPECT_EQ(step().front().count, 16);
    EXPECT_EQ(pool_->used(), 4) << "after chunk " << chunk;
  }
  while (prompt.generated() < 29) step();
  EXPECT_LE(pool_->used(), 3);
  step();
  EXPECT_EQ(prompt.state, RequestState::finished);
  EXPECT_EQ(pool_->used(), 0);
}

TEST_F(SchedulerTest, SharesTheBlocksOfEqualBeginnings) {
  make(20, limits(4, 100));
  Sequence& first = add(40, 1);
  step();
  EXPECT_EQ(first.state, RequestState::finished);
  EXPECT_EQ(pool_->used(), 0);
  EXPECT_EQ(pool_->kept(), 2);
  Sequence& same = add(40, 3);
  const std::vector<Part> parts = launch();
  EXPECT_EQ(parts[0].begin, 32);
  EXPECT_EQ(parts[0].count, 8);
  commit(parts);
  Sequence& third = add(33, 3);  // of 33 tokens two blocks can be shared, of 32 only one: a token must be computed
  Sequence& fourth = add(32, 3);
  step();
  EXPECT_EQ(third.held.groups[0][1], same.held.groups[0][1]);
  EXPECT_EQ(fourth.held.groups[0][0], same.held.groups[0][0]);
  EXPECT_NE(fourth.held.groups[0][1], same.held.groups[0][1]);
  EXPECT_EQ(scheduler_->reused_tokens(), 32 + 32 + 16);
}

TEST_F(SchedulerTest, TheOtherChoicesOfARequestWaitForTheFirstOnesPrompt) {
  make(20, limits(4, 100));
  Sequence& first = add(40, 5);
  Sequence& second =
      sequences_.emplace_back(Request{.prompt = std::vector<std::int32_t>(40, 1), .sampling = {.max_tokens = 5}}, 1);
  second.arrival = first.arrival;
  second.first = &first;
  scheduler_->add(second);
  Sequence& other = add(3, 5);
  EXPECT_EQ(step().size(), 2U);
  EXPECT_EQ(second.state, RequestState::waiting);
  EXPECT_EQ(other.state, RequestState::running);  // who comes later does not wait with it
  step();
  EXPECT_EQ(second.state, RequestState::running);
  EXPECT_EQ(second.held.groups[0][1], first.held.groups[0][1]);
}

TEST_F(SchedulerTest, KeepsSeveralStepsInFlight) {
  make(20, limits(4, 10));
  Sequence& prompt = add(25, 5);
  const std::vector<Part> first = launch(), second = launch(), third = launch(), fourth = launch();
  EXPECT_EQ(first[0].count, 10);
  EXPECT_EQ(second[0].begin, 10);
  EXPECT_EQ(third[0].count, 5);
  EXPECT_TRUE(third[0].samples);
  EXPECT_TRUE(fourth.empty());  // its next token is not known
  commit(first);
  scheduler_->end(prompt, {RequestState::cancelled, FinishReason::cancelled, {}});
  EXPECT_EQ(prompt.state, RequestState::running);  // two steps write into its blocks
  commit(second);
  EXPECT_EQ(pool_->used(), 2);
  commit(third);
  EXPECT_EQ(prompt.state, RequestState::cancelled);
  EXPECT_EQ(pool_->used(), 0);
  EXPECT_EQ(scrubbed_, 2);  // nobody looked at a row of its
}

TEST_F(SchedulerTest, AFailureEndsItsSequenceAndScrubsItsBlocks) {
  make(20, limits(4, 100));
  Sequence &bad = add(20, 5), &good = add(20, 5, 3);
  const std::vector<Part> parts = launch();
  std::vector<Outcome> outcomes(2, drew_two());
  outcomes[0].error = Error(ErrorCode::numeric, "no number");
  scheduler_->commit(parts, outcomes);
  EXPECT_EQ(bad.state, RequestState::failed);
  EXPECT_EQ(bad.error->code(), ErrorCode::numeric);
  EXPECT_EQ(good.state, RequestState::running);
  EXPECT_EQ(scrubbed_, 2);
  EXPECT_EQ(pool_->kept(), 0);
}

TEST_F(SchedulerTest, RowsThatAreWantedAreLimitedAndComeOnce) {
  make(20, {.max_num_seqs = 2, .max_num_batched_tokens = 100, .max_rows = 6});
  Sequence& scored = add(20, 3);
  scored.scored_end = 19;
  Sequence& other = add(4, 30, 3);
  std::int64_t rows = 0;
  for (int i = 0; i < 12 && scored.state != RequestState::finished; ++i) {
    const std::vector<Part> parts = step();
    std::int64_t all = 0;
    for (const Part& part : parts) {
      all += part.rows();
      if (part.sequence == &scored && part.scored > 0) {
        EXPECT_EQ(part.first_scored, rows);
        rows += part.scored;
      }
    }
    EXPECT_LE(all, 6);
  }
  EXPECT_EQ(rows, 19);
  EXPECT_EQ(scored.generated(), 3);
  EXPECT_GT(other.generated(), 0);
}

TEST_F(SchedulerTest, BuildsTheStepsFlatInput) {
  make(20, limits(4, 100));
  add(20, 2);
  add(3, 2);
  const std::vector<Part> parts = launch();
  StepInput step;
  fill_step_input(parts, step);
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
  EXPECT_EQ(step.block_tables()[1], parts[0].sequence->held.groups[0][1]);
}

}  // namespace
}  // namespace lamella::testing
