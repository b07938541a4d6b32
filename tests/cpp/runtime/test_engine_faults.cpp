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
void poison(ResidentWeights& weights, ThreadTeam& /*team*/) {
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
  Engine engine(spec, {.max_num_seqs = 4, .max_num_batched_tokens = 32},
                std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = 2}), poison);
  const Request good{.prompt = {1, 2, 3}, .sampling = {.max_tokens = 8}};
  const RequestId first = engine.submit(good);
  const RequestId bad = engine.submit({.prompt = {4, 7, 5}, .sampling = {.max_tokens = 8}});
  const std::vector<std::int32_t> expected = finish(engine, first);
  Progress progress = engine.poll(bad);
  EXPECT_EQ(progress.reason, FinishReason::error);
  ASSERT_TRUE(progress.error.has_value());
  EXPECT_EQ(progress.error->code(), ErrorCode::numeric);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(finish(engine, engine.submit(good)), expected);
  expect_balanced(engine);
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
}

TEST(EngineFaults, A7_NaNFailsTheCallOfEncodeByTheInputsNumberAndLeavesNothingBehind) {
  Engine engine(bert_like(), {.max_num_seqs = 4, .max_num_batched_tokens = 64},
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
    EXPECT_EQ(engine.stats().kv_blocks_used, 0);
    EXPECT_EQ(engine.encode(good, pooling), expected);
  }
}

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

struct Interrupted : std::exception {};

TEST(EngineFaults, G_AnInterruptEndsACallOfManyStepsBetweenTwoOfThem) {
  const auto stop_at = [](int call, int& calls) {
    return [call, &calls] {
      if (++calls == call) throw Interrupted();
    };
  };
  const std::unique_ptr<Engine> decoder = make_engine(llama_like()), encoder = make_engine(bert_like());
  const std::vector<std::int32_t> tokens(100, 5);  // four steps of 32 tokens at most
  const std::vector<std::vector<std::int32_t>> inputs(10, std::vector<std::int32_t>(40, 5));  // one a step of 64
  const std::vector<float> logits = decoder->logits(tokens);
  const std::vector<std::vector<float>> rows = encoder->encode(inputs, Pooling::mean);
  for (const int at : {1, 3}) {
    int calls = 0;
    EXPECT_THROW(static_cast<void>(decoder->logits(tokens, stop_at(at, calls))), Interrupted);
    EXPECT_EQ(calls, at);
    calls = 0;
    EXPECT_THROW(static_cast<void>(encoder->encode(inputs, Pooling::mean, stop_at(at, calls))), Interrupted);
    EXPECT_EQ(calls, at);
  }
  int calls = 0;
  EXPECT_EQ(decoder->logits(tokens, stop_at(0, calls)), logits);
  EXPECT_EQ(calls, 3);
  calls = 0;
  EXPECT_EQ(encoder->encode(inputs, Pooling::mean, stop_at(0, calls)), rows);
  EXPECT_EQ(calls, 9);
  for (const auto& engine : {decoder.get(), encoder.get()}) EXPECT_EQ(engine->stats().kv_blocks_used, 0);
}

TEST(EngineFaults, G_OtherThreadsStepBetweenTheStepsOfACallOfMany) {
  const std::unique_ptr<Engine> engine = make_engine(llama_like());
  const Request request{.prompt = {1, 2, 3}, .sampling = {.max_tokens = 5}};
  const std::vector<std::int32_t> expected = finish(*engine, engine->submit(request)), tokens(100, 5);
  const std::vector<float> logits = engine->logits(tokens);
  std::vector<std::int32_t> generated;
  const std::vector<float> again = engine->logits(tokens, [&] {
    if (generated.empty()) generated = finish(*engine, engine->submit(request));  // would hang if stepping were locked
  });
  EXPECT_EQ(generated, expected);
  EXPECT_EQ(again, logits);
}

TEST(EngineFaults, G_TwoCallsOfLogitsWaitForEachOther) {
  // A cache of one sequence: the second has no blocks while the first runs, and is served after it.
  const std::unique_ptr<Engine> engine =
      make_engine(llama_like(), {.config = {.max_num_seqs = 1, .max_num_batched_tokens = 16}});
  const std::vector<std::int32_t> tokens(120, 5);
  const std::vector<float> expected = engine->logits(tokens);
  std::vector<float> other;
  std::atomic<int> waited{0};
  std::thread second;
  const std::vector<float> first = engine->logits(tokens, [&] {
    if (second.joinable()) return;
    second = std::thread([&other, &engine, &tokens, &waited] { other = engine->logits(tokens, [&] { ++waited; }); });
    while (waited.load() < 3) std::this_thread::yield();
  });
  second.join();
  EXPECT_EQ(first, expected);
  EXPECT_EQ(other, expected);
}

}  // namespace
}  // namespace lamella::testing
