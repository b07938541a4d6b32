#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "models.h"
#include "recording_device.h"

namespace lamella::testing {
namespace {

ErrorCode refusal(EngineCore& engine, const Request& request) {
  try {
    static_cast<void>(engine.client().submit(request));
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::internal;
}

TEST(Engine, GreedyTokensAreTheArgmaxOfItsLogits) {
  const std::unique_ptr<EngineCore> engine = make_engine(llama_like());
  std::vector<std::int32_t> sequence = {5, 17, 99};
  const std::vector<std::int32_t> generated = generate(*engine, {.prompt = sequence, .sampling = {.max_tokens = 20}});
  ASSERT_EQ(generated.size(), 20U);
  for (const std::int32_t token : generated) {
    const std::vector<float> logits = engine->logits(sequence);
    const auto last = logits.end() - engine->spec().vocab;
    EXPECT_EQ(std::max_element(last, logits.end()) - last, token);
    sequence.push_back(token);
  }
  expect_idle(*engine);
}

TEST(Engine, OnlyStepsThatWantMoreThanTheBestTokenKeepLogits) {
  const cpu::KernelTable& kernels = cpu::kernel_table(cpu::available_kernel_sets().back(), DataType::f32);
  const auto tokens_and_rows = [&](const SamplingParams& sampling) {
    LogitRows rows;  // those of plans that have logits
    EngineCore engine(llama_like(), {}, std::make_unique<RecordingDevice>(2, kernels, rows),
                      [](RankWeights ranks, ThreadTeam&) { fill_lively(*ranks.front(), 7); });
    const std::vector<std::int32_t> tokens = generate(engine, {.prompt = {5, 17, 99}, .sampling = sampling});
    engine.close();
    return std::pair(tokens, rows.size());
  };
  const auto [tokens, rows] = tokens_and_rows({.max_tokens = 6});
  EXPECT_EQ(tokens.size(), 6U);
  EXPECT_EQ(rows, 0U);
  EXPECT_EQ(tokens_and_rows({.max_tokens = 6, .logprobs = 0}), std::pair(tokens, std::size_t{6}));
  EXPECT_EQ(tokens_and_rows({.max_tokens = 6, .logit_bias = {{3, 0.0F}}}), std::pair(tokens, std::size_t{6}));
  EXPECT_EQ(tokens_and_rows({.max_tokens = 6, .temperature = 0.8}).second, 6U);
  EXPECT_EQ(tokens_and_rows({.max_tokens = 6, .prompt_logprobs = 0}).first, tokens);
}

TEST(Engine, ARequestsTokensDoNotDependOnItsCompanyNorOnChunks) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (const ModelSpec& spec : {llama_like(), gpt2_like(), neox_like()}) {
    std::vector<Request> requests;
    for (int i = 0; i < 9; ++i) {
      const std::size_t length = 1 + random() % 40;
      requests.push_back({.prompt = random_tokens(random, spec.vocab, length),
                          .sampling = {.max_tokens = 1 + static_cast<std::int64_t>(random() % 20),
                                       .temperature = i % 2 == 0 ? 0.0 : 0.8,
                                       .seed = seed + i}});
    }
    std::vector<std::vector<std::int32_t>> alone;
    {
      const std::unique_ptr<EngineCore> engine = make_engine(spec, {.threads = 1});
      for (const Request& request : requests) alone.push_back(generate(*engine, request));
    }
    for (const std::int64_t chunk : {4, 11, 64}) {
      const std::unique_ptr<EngineCore> engine =
          make_engine(spec, {.config = {.max_num_seqs = 4, .max_num_batched_tokens = chunk}, .threads = 3});
      Listener listener(*engine);
      const std::vector<RequestId> ids = listener.submit_all(requests);
      for (std::size_t i = 0; i < ids.size(); ++i)
        EXPECT_EQ(listener.finish(ids[i]).tokens, alone[i]) << spec.family << " chunk " << chunk << " request " << i;
      expect_balanced(*engine);
      expect_idle(*engine);
    }
  }
}

TEST(Engine, AWindowedModelWritesATextFarLongerThanItsCacheHolds) {
  ModelSpec spec = llama_like();
  for (LayerSpec& layer : spec.layers) layer.attention.window = 20;
  // A chunk of 16 tokens and the 19 before them touch four blocks at most.
  const std::uint64_t block =
      std::uint64_t{2} * 2 * 2 * 16 * 16 * sizeof(float);  // layers, K and V, heads, slots, elements (6, padded)
  EngineConfig config{.max_num_seqs = 1, .max_num_batched_tokens = 16, .kv_cache_memory = 4 * block};
  const Request request{.prompt = std::vector<std::int32_t>(28, 5), .sampling = {.max_tokens = 100}};
  const std::unique_ptr<EngineCore> small = make_engine(spec, {.config = config});
  EXPECT_EQ(small->stats().kv_blocks_total, 4);
  const std::vector<std::int32_t> tokens = generate(*small, request);
  EXPECT_EQ(tokens, generate(*make_engine(spec), request));
  EXPECT_EQ(tokens.size(), 100U);
  expect_idle(*small);

  config.kv_cache_memory = 3 * block;
  EXPECT_EQ(refusal(*make_engine(spec, {.config = config}), request), ErrorCode::out_of_memory);
  spec.layers[1].attention.window = 0;  // which keeps all of its 127 tokens, in blocks of half the size
  config.kv_cache_memory = (4 + 8) * block / 2;
  EXPECT_EQ(generate(*make_engine(spec, {.config = config}), request).size(), 100U);
  config.kv_cache_memory = (4 + 7) * block / 2;
  EXPECT_EQ(refusal(*make_engine(spec, {.config = config}), request), ErrorCode::out_of_memory);
}

TEST(Engine, StopTokensEndARequestAndAreNotReturned) {
  const std::unique_ptr<EngineCore> engine = make_engine(gpt2_like());
  const std::vector<std::int32_t> all = generate(*engine, {.prompt = {1, 2, 3}, .sampling = {.max_tokens = 10}});
  Listener listener(*engine);
  const RequestId id =
      listener.submit({.prompt = {1, 2, 3}, .sampling = {.max_tokens = 10, .stop_token_ids = {all[4]}}});
  const std::vector<std::int32_t> expected(all.begin(), std::find(all.begin(), all.end(), all[4]));
  EXPECT_EQ(listener.finish(id).tokens, expected);
  EXPECT_EQ(listener.heard(id).reason, FinishReason::stop);
}

TEST(Engine, F1_F2_F3_RefusesBadRequestsAndCountsThem) {
  const std::unique_ptr<EngineCore> engine = make_engine(llama_like());
  EXPECT_EQ(refusal(*engine, {.prompt = {}}), ErrorCode::invalid_argument);
  EXPECT_EQ(refusal(*engine, {.prompt = {-1}, .sampling = {.max_tokens = 1}}), ErrorCode::invalid_argument);
  EXPECT_EQ(refusal(*engine, {.prompt = {101}, .sampling = {.max_tokens = 1}}), ErrorCode::invalid_argument);
  EXPECT_EQ(refusal(*engine, {.prompt = std::vector<std::int32_t>(129, 1), .sampling = {.max_tokens = 1}}),
            ErrorCode::context_too_long);
  EXPECT_EQ(refusal(*engine, {.prompt = {1}, .sampling = {.max_tokens = 128}}), ErrorCode::context_too_long);
  EXPECT_EQ(refusal(*engine, {.prompt = {1}, .sampling = {.max_tokens = 1, .top_p = 0.0}}),
            ErrorCode::invalid_argument);
  EXPECT_EQ(engine->stats().requests.rejected, 6);
  try {
    static_cast<void>(
        engine->client().submit({.prompt = std::vector<std::int32_t>(128, 1), .sampling = {.max_tokens = 1}}));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {  // "ask for at most 0" would be no help
    EXPECT_NE(std::string(error.what()).find("which the prompt fills; shorten it"), std::string::npos) << error.what();
  }
  const Request good{.prompt = {1}, .sampling = {.max_tokens = 1}}, bad{.prompt = {}, .sampling = {.max_tokens = 1}};
  Client client = engine->client();
  try {
    static_cast<void>(client.submit({good, bad, good}));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("request 1: ")) << error.what();
  }
  EXPECT_EQ(engine->stats().requests.rejected, 10);  // a list is refused whole
  EXPECT_EQ(client.open(), 0U);
  expect_balanced(*engine);
}

TEST(Engine, F7_ACancelledRequestEndsAndItsBlocksAreFree) {
  const std::unique_ptr<EngineCore> engine = make_engine(llama_like());
  const std::vector<std::int32_t> whole = generate(*engine, {.prompt = {1, 2}, .sampling = {.max_tokens = 120}});
  Listener listener(*engine);
  Ended cancelled;
  for (int attempt = 0; attempt < 1000 && cancelled.reason != FinishReason::cancelled; ++attempt) {
    // On a busy machine a request may have ended before it is cancelled.
    const RequestId running = listener.submit({.prompt = {1, 2}, .sampling = {.max_tokens = 120}});
    const RequestId other = listener.submit({.prompt = {3}, .sampling = {.max_tokens = 3}});
    while (listener.heard(running).tokens.empty()) listener.listen();
    listener.cancel(running);
    EXPECT_EQ(listener.finish(other).tokens.size(), 3U);
    cancelled = listener.finish(running);
    EXPECT_NO_THROW(listener.cancel(running));
    expect_idle(*engine);
    expect_balanced(*engine);
  }
  ASSERT_EQ(cancelled.reason, FinishReason::cancelled);
  EXPECT_LT(cancelled.tokens.size(), whole.size());
  EXPECT_TRUE(std::equal(cancelled.tokens.begin(), cancelled.tokens.end(), whole.begin()));
  EXPECT_EQ(engine->stats().requests.cancelled, 1);
}

TEST(Engine, F7_AClientThatLeavesTakesItsRequestsWithIt) {
  const std::unique_ptr<EngineCore> engine = make_engine(llama_like());
  {
    Listener listener(*engine);
    for (int i = 0; i < 6; ++i) listener.submit({.prompt = {1, 2, i}, .sampling = {.max_tokens = 120}});
    listener.listen();
  }
  static_cast<void>(generate(*engine, {.prompt = {3}, .sampling = {.max_tokens = 3}}));
  while (engine->stats().requests.running > 0) std::this_thread::yield();
  expect_idle(*engine);
  expect_balanced(*engine);
}

TEST(Engine, ManyThreadsShareOneEngine) {
  const std::unique_ptr<EngineCore> engine = make_engine(llama_like());
  const Request request{.prompt = {9, 8, 7}, .sampling = {.max_tokens = 12}};
  const std::vector<std::int32_t> expected = generate(*engine, request);
  std::atomic<int> wrong{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c)
    clients.emplace_back([&, c] {
      for (int i = 0; i < 5; ++i) {
        Listener listener(*engine);
        const RequestId id = listener.submit(request);
        if (c == 3 && i % 2 == 0) {
          listener.cancel(id);
          if (listener.finish(id).reason == FinishReason::running) ++wrong;
        } else if (listener.finish(id).tokens != expected) {
          ++wrong;
        }
        static_cast<void>(engine->stats());
      }
    });
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(wrong.load(), 0);
  expect_idle(*engine);
  expect_balanced(*engine);
}

TEST(Engine, G_CloseEndsWhatRunsAndRefusesWhatComes) {
  std::unique_ptr<EngineCore> engine = make_engine(llama_like());
  Listener listener(*engine);
  const std::vector<RequestId> ids =
      listener.submit_all(std::vector<Request>(2000, {.prompt = {1, 2}, .sampling = {.max_tokens = 120}}));
  listener.listen();
  engine->close();
  expect_idle(*engine);
  expect_balanced(*engine);
  engine->close();
  try {
    static_cast<void>(listener.submit({.prompt = {1}, .sampling = {.max_tokens = 1}}));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  }
  EXPECT_THROW(static_cast<void>(engine->logits(std::vector<std::int32_t>{1})), Error);
  engine.reset();  // the client sees the end of its requests even so
  for (const RequestId id : ids) EXPECT_NE(listener.finish(id).reason, FinishReason::running);
  EXPECT_EQ(listener.finish(ids.back()).reason, FinishReason::cancelled);
}

TEST(Engine, SamplesOfARequestShareItsPromptAndAreThoseOfTheSameSeedAlone) {
  const std::unique_ptr<EngineCore> engine = make_engine(llama_like());
  const std::vector<std::int32_t> prompt(50, 3);
  const SamplingParams sampling{.max_tokens = 10, .temperature = 1.0, .seed = 5, .n = 6};
  Listener listener(*engine);
  const RequestId id = listener.submit({.prompt = prompt, .sampling = sampling});
  std::vector<std::vector<std::int32_t>> samples;
  for (std::int32_t i = 0; i < 6; ++i) samples.push_back(listener.finish(id, i).tokens);
  EXPECT_EQ(engine->stats().loop.reused_tokens, 5 * 48);
  const SamplingParams one{.max_tokens = 10, .temperature = 1.0, .seed = 5};
  EXPECT_EQ(generate(*engine, {.prompt = prompt, .sampling = one}), samples.front());
  EXPECT_NE(samples[1], samples[2]);
  EXPECT_EQ(engine->stats().requests.received, 2);
  EXPECT_EQ(engine->stats().requests.finished, 2);
  expect_idle(*engine);
}

TEST(Engine, EncodesBatchesAsAlone) {
  const std::unique_ptr<EngineCore> engine = make_engine(bert_like());
  std::mt19937 random(11);
  std::vector<std::vector<std::int32_t>> inputs;
  for (int i = 0; i < 13; ++i) inputs.push_back(random_tokens(random, 67, 1 + random() % 60));
  for (const Pooling pooling : {Pooling::none, Pooling::mean, Pooling::cls, Pooling::pooler}) {
    const std::vector<std::vector<float>> together = engine->encode(inputs, pooling);
    for (std::size_t i = 0; i < inputs.size(); ++i)
      EXPECT_EQ(engine->encode({inputs[i]}, pooling).front(), together[i]) << i;
  }
  expect_idle(*engine);
}

TEST(Engine, ExplainsItsPlanWithMeasuredTimes) {
  const std::unique_ptr<EngineCore> engine = make_engine(llama_like());
  const std::vector<ExplainRow> rows = engine->explain(StepShape::uniform(2, 1, 20));
  ASSERT_EQ(rows.size(), engine->plans().front()->ops.size());
  for (const ExplainRow& row : rows) {
    EXPECT_TRUE(row.measured_s.has_value());
    EXPECT_GE(row.roofline_s.value_or(0.0), 0.0);
    EXPECT_FALSE(row.kernel.empty());
  }
  EXPECT_THROW(static_cast<void>(engine->explain(StepShape::uniform(5, 1, 20))), Error);
}

TEST(Engine, D2_AStepThatTheWholeKvCacheCannotHoldIsNotOverload) {
  const auto code = [](EngineCore& engine) {
    try {
      static_cast<void>(engine.explain(StepShape::uniform(4, 1, 128)));
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  // Weights and activations, and a little more than the blocks of one sequence.
  const EngineStats whole = make_engine(llama_like())->stats();
  const std::uint64_t budget = whole.bytes_weights + whole.bytes_activations + whole.bytes_kv / 4 + 1000;
  const std::unique_ptr<EngineCore> tight =
      make_engine(llama_like(), {.config = {.max_num_seqs = 4, .max_num_batched_tokens = 32, .memory_budget = budget}});
  EXPECT_LT(tight->stats().kv_blocks_total, 32);
  EXPECT_EQ(code(*tight), ErrorCode::out_of_memory);
  const std::unique_ptr<EngineCore> roomy = make_engine(llama_like());
  static_cast<void>(roomy->roofline());  // takes its time, and explain() needs it
  Listener listener(*roomy);
  listener.submit_all(std::vector<Request>(4000, {.prompt = {1}, .sampling = {.max_tokens = 100}}));
  listener.listen();
  EXPECT_EQ(code(*roomy), ErrorCode::overloaded);
}

TEST(Engine, D2_ARooflineKeepsToTheBudget) {
  const auto bandwidth_and_row = [](std::uint64_t budget) {
    const std::unique_ptr<EngineCore> engine =
        make_engine(llama_like(), {.config = {.max_num_seqs = 1, .memory_budget = budget}, .threads = 1});
    const std::vector<ExplainRow> rows = engine->explain(StepShape::uniform(1, 1, 20));
    return std::pair(engine->roofline().bytes_per_s, rows.front().roofline_s);
  };
  constexpr std::uint64_t mib = 1 << 20;
  EXPECT_EQ(bandwidth_and_row(16 * mib), (std::pair(0.0, std::optional<double>())));  // too little for a measurement
  const auto [bandwidth, row] = bandwidth_and_row(100 * mib);
  EXPECT_GT(bandwidth, 0.0);
  EXPECT_TRUE(row.has_value());
}

TEST(Engine, D1_RefusesBeforeWeightsAreTouched) {
  bool filled = false;
  try {
    EngineCore engine(llama_like(), {.memory_budget = 1000},
                      std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = 1}),
                      [&](RankWeights, ThreadTeam&) { filled = true; });
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
  }
  EXPECT_FALSE(filled);
}

}  // namespace
}  // namespace lamella::testing
