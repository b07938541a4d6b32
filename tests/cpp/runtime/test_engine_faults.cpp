// What a request, a call or an allocation that fails leaves behind: nothing.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <exception>
#include <new>
#include <thread>

#include "failing_new.h"
#include "models.h"

namespace lamella::testing {
namespace {

/// Token 7's embedding overflows: whoever says it gets NaN, nobody else does.
void poison(RankWeights ranks, ThreadTeam& /*team*/) {
  ResidentWeights& weights = *ranks.front();
  fill_lively(weights, 1);
  const PanelLayout table = weights.matrix({Slot::token_embedding, -1}).layout();
  std::byte* bytes = weights.bytes({Slot::token_embedding, -1}).data();
  for (std::int64_t i = 0; i < 30; ++i) {
    const float value = i % 2 == 0 ? 3e38F : -3e38F;
    std::memcpy(bytes + table.word_offset(7, 0, i), &value, sizeof value);
  }
}

TEST(EngineFaults, A7_NaNFailsOneRequestOnlyAndLeavesNothingBehind) {
  ModelSpec spec = gpt2_like();
  // A head of its own, so that the poisoned row is no logit.
  spec.head.tied = false;
  EngineCore engine(spec, {.max_num_seqs = 4, .max_num_batched_tokens = 32},
                    std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = 2}), poison);
  const Request good{.prompt = {1, 2, 3}, .sampling = {.max_tokens = 8}};
  Listener listener(engine);
  const std::vector<RequestId> ids = listener.submit_all({good, {.prompt = {4, 7, 5}, .sampling = {.max_tokens = 8}}});
  const Ended bad = listener.finish(ids[1]);
  EXPECT_EQ(bad.reason, FinishReason::error);
  ASSERT_TRUE(bad.error.has_value());
  EXPECT_EQ(bad.error->code(), ErrorCode::numeric);
  const std::vector<std::int32_t> expected = listener.finish(ids[0]).tokens;
  for (int i = 0; i < 6; ++i) EXPECT_EQ(generate(engine, good), expected);
  expect_balanced(engine);
  expect_idle(engine);
}

TEST(EngineFaults, P9_ARequestThatLeavesInTheMiddleOfItsPromptLeavesNoNaNBehind) {
  ModelSpec spec = gpt2_like();
  spec.head.tied = false;
  EngineCore engine(spec, {.max_num_seqs = 1, .max_num_batched_tokens = 4},
                    std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = 2}), poison);
  const Request good{.prompt = {1, 2, 3}, .sampling = {.max_tokens = 8}};
  const std::vector<std::int32_t> expected = generate(engine, good);
  for (int i = 0; i < 20; ++i) {
    {
      Listener leaving(engine);
      const std::int64_t steps = engine.stats().loop.steps;
      leaving.submit({.prompt = std::vector<std::int32_t>(60, 7), .sampling = {.max_tokens = 1}});
      while (engine.stats().loop.steps == steps) std::this_thread::yield();  // of fifteen
    }
    EXPECT_EQ(generate(engine, good), expected);
  }
}

TEST(EngineFaults, A7_NaNFailsTheCallOfEncodeByTheInputsNumberAndLeavesNothingBehind) {
  EngineCore engine(bert_like(), {.max_num_seqs = 4, .max_num_batched_tokens = 64},
                    std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = 2}), poison);
  const std::vector<std::vector<std::int32_t>> good(9, {1, 2, 3});
  for (const Pooling pooling : {Pooling::none, Pooling::mean, Pooling::cls, Pooling::pooler}) {
    const std::vector<std::vector<float>> expected = engine.encode(good, pooling);
    std::vector<std::vector<std::int32_t>> inputs = good;
    inputs[6] = {4, 7, 5};
    try {
      static_cast<void>(engine.encode(inputs, pooling));
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::numeric);
      EXPECT_TRUE(std::string(error.what()).starts_with("input 6: ")) << error.what();
    }
    expect_idle(engine);
    EXPECT_EQ(engine.encode(good, pooling), expected);
  }
}

TEST(EngineFaults, D3_AnAllocationThatFailsCostsTheRequestsOfThatStepAtMost) {
  // Every allocation of a run fails once: on the thread that submits, on the loop's and its team's, and where the
  // news are taken. A request is then refused, ends as it would have, or has failed with no token that is not its own;
  // and the engine is as it was.
  const Request greedy{.prompt = {1, 2, 3}, .sampling = {.max_tokens = 4}};
  const Request sampled{.prompt = std::vector<std::int32_t>(40, 9),  // two steps for the prompt
                        .sampling = {.max_tokens = 4, .temperature = 1.0, .top_k = 50, .top_p = 0.9, .seed = 3}};
  const std::unique_ptr<EngineCore> engine = make_engine(llama_like(), {.threads = 2});
  const std::vector<std::int32_t> expected[] = {generate(*engine, greedy), generate(*engine, sampled)};
  int failures = 0, refused = 0;
  bool reached = true;
  for (std::size_t before = 0; reached; ++before) {
    Client client = engine->client();
    std::vector<Request> requests = {greedy, sampled};
    std::vector<RequestId> ids;
    std::vector<Progress> news[2];
    for (std::vector<Progress>& one : news) one.reserve(16);
    {
      const FailingNew failing(before);
      try {
        ids = client.submit(std::move(requests));
      } catch (const std::bad_alloc&) {
        ++refused;
      }
      while (client.open() > 0) {
        try {
          for (Progress& progress : client.wait(60.0)) news[progress.id - ids[0]].push_back(std::move(progress));
        } catch (const std::bad_alloc&) {  // NOLINT(bugprone-empty-catch): nothing is lost, it can be asked for again
        }
      }
      reached = failing.failed();
    }
    for (std::size_t i = 0; i < ids.size(); ++i) {
      std::vector<std::int32_t> tokens;
      for (const Progress& progress : news[i])
        tokens.insert(tokens.end(), progress.new_tokens.begin(), progress.new_tokens.end());
      if (news[i].back().reason == FinishReason::error) {
        ++failures;
        EXPECT_EQ(news[i].back().error->code(), ErrorCode::out_of_memory) << news[i].back().error->what();
        ASSERT_LE(tokens.size(), expected[i].size());
        EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), expected[i].begin())) << "allocation " << before;
      } else {
        EXPECT_EQ(tokens, expected[i]) << "allocation " << before;
      }
    }
    expect_idle(*engine);
    expect_balanced(*engine);
  }
  EXPECT_GT(failures, 2);
  EXPECT_GT(refused, 10);
  EXPECT_EQ(generate(*engine, greedy), expected[0]);
}

struct Interrupted : std::exception {};

TEST(EngineFaults, G_AnInterruptEndsACallOfManySteps) {
  const std::unique_ptr<EngineCore> decoder =
      make_engine(llama_like(), {.config = {.max_num_seqs = 4, .max_num_batched_tokens = 4}, .threads = 1});
  const std::unique_ptr<EngineCore> encoder = make_engine(bert_like());
  const std::vector<std::int32_t> tokens(100, 5);
  const std::vector<std::vector<std::int32_t>> inputs(10, std::vector<std::int32_t>(40, 5));  // one a step of 64
  const std::vector<float> logits = decoder->logits(tokens);
  const std::vector<std::vector<float>> rows = encoder->encode(inputs, Pooling::mean);
  for (const int at : {1, 3}) {
    int calls = 0;
    const auto stop = [&](std::size_t) {
      if (++calls == at) throw Interrupted();
    };
    EXPECT_THROW(static_cast<void>(encoder->encode(inputs, Pooling::mean, stop)), Interrupted);
    EXPECT_EQ(calls, at);
  }
  std::vector<std::size_t> told;
  EXPECT_EQ(encoder->encode(inputs, Pooling::mean, [&](std::size_t done) { told.push_back(done); }), rows);
  EXPECT_EQ(told, (std::vector<std::size_t>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
  {  // A call of logits that waits behind others for seconds.
    Listener others(*decoder);
    others.submit_all(std::vector<Request>(3000, {.prompt = {1, 2}, .sampling = {.max_tokens = 126}}));
    EXPECT_THROW(static_cast<void>(decoder->logits(tokens, [] { throw Interrupted(); })), Interrupted);
  }
  EXPECT_EQ(decoder->logits(tokens), logits);
}

TEST(EngineFaults, G_CallsOfLogitsShareACacheOfOneSequence) {
  const std::unique_ptr<EngineCore> engine =
      make_engine(llama_like(), {.config = {.max_num_seqs = 1, .max_num_batched_tokens = 16}});
  const std::vector<std::int32_t> tokens(120, 5);
  const std::vector<float> expected = engine->logits(tokens);
  std::vector<float> others[3];
  std::vector<std::thread> threads;
  for (std::vector<float>& other : others) threads.emplace_back([&] { other = engine->logits(tokens); });
  const std::vector<std::int32_t> generated = generate(*engine, {.prompt = {1, 2}, .sampling = {.max_tokens = 5}});
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& other : others) EXPECT_EQ(other, expected);
  EXPECT_EQ(generate(*engine, {.prompt = {1, 2}, .sampling = {.max_tokens = 5}}), generated);
  expect_idle(*engine);
}

}  // namespace
}  // namespace lamella::testing
