// What a request, a call or an allocation that fails leaves behind: nothing.
#include <gtest/gtest.h>

#include <new>

#include "failing_new.h"
#include "models.h"

namespace lamella::testing {
namespace {

TEST(EngineFaults, D3_AnAllocationThatFailsInAStepCostsTheRequestsOfThatStepAtMost) {
  // Every allocation of a run of steps fails once. A request then ends as it would have, or as failed, with no token
  // that is not its own; and the engine is as it was.
  const Request greedy{.prompt = {1, 2, 3}, .sampling = {.max_tokens = 4}};
  const Request sampled{.prompt = std::vector<std::int32_t>(40, 9),  // two steps for the prompt
                        .sampling = {.max_tokens = 4, .temperature = 1.0, .top_k = 50, .top_p = 0.9, .seed = 3}};
  const std::unique_ptr<Engine> engine = make_engine(llama_like(), {.threads = 2});
  const std::vector<std::int32_t> expected[] = {finish(*engine, engine->submit(greedy)),
                                                finish(*engine, engine->submit(sampled))};
  int failures = 0, stolen = 0;
  bool reached = true;
  for (std::size_t before = 0; reached; ++before) {
    const RequestId ids[] = {engine->submit(greedy), engine->submit(sampled)};
    {
      const FailingNew failing(before);
      for (int step = 0; step < 6; ++step) {
        try {
          engine->step();
        } catch (const std::bad_alloc&) {  // nothing was begun: the step can be asked for again
          ++stolen;
        }
      }
      reached = failing.failed();
    }
    for (int i = 0; i < 2; ++i) {
      std::vector<std::int32_t> tokens;
      Progress progress;
      do {
        engine->step();
        progress = engine->poll(ids[i]);
        tokens.insert(tokens.end(), progress.new_tokens.begin(), progress.new_tokens.end());
      } while (progress.reason == FinishReason::running);
      if (progress.reason == FinishReason::error) {
        ++failures;
        EXPECT_EQ(progress.error->code(), ErrorCode::out_of_memory) << progress.error->what();
        ASSERT_LE(tokens.size(), expected[i].size());
        EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), expected[i].begin())) << "allocation " << before;
      } else {
        EXPECT_EQ(tokens, expected[i]) << "allocation " << before;
      }
    }
    EXPECT_EQ(engine->stats().kv_blocks_used, 0);
    EXPECT_EQ(engine->stats().running, 0);
    expect_balanced(*engine);
  }
  EXPECT_GT(failures, 10);
  EXPECT_GT(stolen, 0);
}

TEST(EngineFaults, D3_ASubmitThatFailsLeavesNoTrace) {
  const std::unique_ptr<Engine> engine = make_engine(llama_like());
  const std::vector<std::int32_t> expected =
      finish(*engine, engine->submit({.prompt = {1, 2, 3}, .sampling = {.max_tokens = 4}}));
  std::int64_t accepted = 1;
  bool reached = true;
  for (std::size_t before = 0; reached; ++before) {
    std::vector<RequestId> ids;
    ids.reserve(80);
    std::vector<Request> requests(80, {.prompt = {1, 2, 3}, .sampling = {.max_tokens = 4}});
    {
      const FailingNew failing(before);
      for (Request& request : requests) {  // many: the queue grows in blocks
        try {
          ids.push_back(engine->submit(std::move(request)));
        } catch (const std::bad_alloc&) {
          EXPECT_EQ(engine->stats().received, accepted + static_cast<std::int64_t>(ids.size()));
        }
      }
      reached = failing.failed();
    }
    accepted += static_cast<std::int64_t>(ids.size());
    expect_balanced(*engine);
    for (const RequestId id : ids) EXPECT_EQ(finish(*engine, id), expected);
  }
  EXPECT_EQ(engine->stats().finished, accepted);
}

}  // namespace
}  // namespace lamella::testing
