// Taking tokens back from sequences: whatever was cut, and wherever, the tokens that come again are those that come
// without a cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

#include "content_executor.h"
#include "runtime/scheduler.h"
#include "seed.h"

namespace lamella::testing {
namespace {

class TruncationScript {
 public:
  explicit TruncationScript(std::uint64_t seed) : random_(seed) {
    if (draw(0, 1) == 0) windows_ = {draw(0, 1) == 0 ? 0 : static_cast<std::int32_t>(draw(20, 60))};
    if (draw(0, 1) == 0) windows_.push_back(static_cast<std::int32_t>(draw(1, 20)));
  }

  void run() {
    const SchedulerLimits limits{
        .max_num_seqs = draw(1, 4),
        .max_num_batched_tokens = draw(4, 40),
        .max_rows = 4,
        .max_blocks_per_sequence = 8,
        .retention = {.windows = windows_, .tokens_in_flight = 40},
        .reuse_prefixes = draw(0, 3) > 0,
    };
    const std::int64_t blocks = limits.retention.most_blocks(100) + draw(0, 12);
    KvBlockPool pool(blocks);
    ContentExecutor executor(blocks, windows_);
    Scheduler scheduler(limits, pool, [](std::span<const std::int32_t>) {});
    for (std::int64_t i = draw(1, 6); i > 0; --i) add(scheduler);
    std::vector<Part> parts;
    StepInput input;
    for (int turn = 0; scheduler.running() + scheduler.waiting() > 0; ++turn) {
      ASSERT_LT(turn, 3000) << "no end";
      if (cuts_left_ > 0 && draw(0, 5) == 0) cut(scheduler);
      scheduler.next(parts);
      ASSERT_FALSE(parts.empty());
      fill_step_input(parts, input);
      scheduler.launch(parts);
      commit(scheduler, parts, executor.run(input));
    }
    EXPECT_EQ(pool.used(), 0);
    for (const Sequence& sequence : sequences_) {
      std::vector<std::int32_t> expected(sequence.tokens.begin(), sequence.tokens.begin() + sequence.prompt_tokens);
      while (expected.size() < sequence.tokens.size())
        expected.push_back(std::max(0, ContentExecutor::next_token(expected, windows_)));
      ASSERT_EQ(sequence.tokens, expected);
      ASSERT_EQ(sequence.generated(), sequence.max_tokens);
    }
    preempted += scheduler.preemptions();
  }

  static inline std::int64_t cuts = 0, preempted = 0, kept = 0;

 private:
  std::int64_t draw(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(high - low + 1));
  }
  void add(Scheduler& scheduler) {
    Request request{.prompt = {}, .sampling = {.max_tokens = draw(1, 40)}};
    for (std::int64_t i = draw(1, 60); i > 0; --i) request.prompt.push_back(static_cast<std::int32_t>(draw(0, 1)));
    sequences_.emplace_back(request, 0, windows_.size()).arrival = sequences_.size();
    scheduler.add(sequences_.back());
  }
  void cut(Scheduler& scheduler) {
    Sequence& sequence =
        sequences_[static_cast<std::size_t>(draw(0, static_cast<std::int64_t>(sequences_.size()) - 1))];
    if (is_final(sequence.state)) return;
    const std::int64_t computed = sequence.computed;
    scheduler.truncate(sequence, draw(sequence.prompt_tokens, static_cast<std::int64_t>(sequence.tokens.size())));
    ASSERT_LT(sequence.computed, static_cast<std::int64_t>(sequence.tokens.size()));
    --cuts_left_;
    ++cuts;
    kept += sequence.computed > 0 && sequence.computed < computed ? 1 : 0;
  }
  void commit(Scheduler& scheduler, const std::vector<Part>& parts, std::span<const float> logits) {
    std::vector<Outcome> outcomes(parts.size());
    std::size_t row = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (!parts[i].samples) continue;
      const std::span<const float> own =
          logits.subspan(row++ * ContentExecutor::vocabulary, ContentExecutor::vocabulary);
      outcomes[i].sampled.token = static_cast<std::int32_t>(std::ranges::find(own, 1.0F) - own.begin());
      if (outcomes[i].sampled.token == ContentExecutor::vocabulary) outcomes[i].sampled.token = 0;  // no numbers
    }
    scheduler.commit(parts, outcomes);
  }

  std::mt19937_64 random_;
  ContentExecutor::Windows windows_ = {0};
  std::deque<Sequence> sequences_;
  int cuts_left_ = 20;
};

TEST(Truncation, ScriptsOfCutsLeaveTheTokensThatComeWithoutThem) {
  const std::uint64_t first = fresh_seed();
  const std::uint64_t scripts = full_stage() ? 20000 : sanitized ? 300 : 2000;
  for (std::uint64_t i = 0; i < scripts && !::testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << first << ", script " << i);
    TruncationScript(first + i).run();
  }
  EXPECT_GT(TruncationScript::cuts, static_cast<std::int64_t>(scripts));
  EXPECT_GT(TruncationScript::kept, static_cast<std::int64_t>(scripts) / 4);
  EXPECT_GT(TruncationScript::preempted, static_cast<std::int64_t>(scripts) / 20);
}

}  // namespace
}  // namespace lamella::testing
