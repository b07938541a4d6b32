// An engine from a packed store answers as the engine does whose weights were packed.
#include "runtime/store_engine.h"

#include <gtest/gtest.h>

#include "formats.h"
#include "io/checkpoint_files.h"
#include "io/store_files.h"
#include "models.h"

namespace lamella::testing {
namespace {

std::vector<std::unique_ptr<Device>> device(int threads = 2) {
  std::vector<std::unique_ptr<Device>> one;
  one.push_back(std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = threads}));
  return one;
}

EngineConfig small(EngineConfig config) {
  config.max_num_seqs = 4;
  config.max_num_batched_tokens = 32;
  return config;
}

/// The store of fill_lively()'s weights, in a file.
PackedStore lively_store(const test::TemporaryFolder& folder, const ModelSpec& spec, DataType dtype,
                         const std::vector<WeightFormat>& formats) {
  std::vector<WeightDeclaration> declared = declare_weights(spec);
  set_formats(declared, formats);
  ResidentWeights weights(std::move(declared));
  fill_lively(weights, 1);
  return open_store(folder.write("model.lamella", test::store_of(spec, dtype, weights)));
}

TEST(StoreEngine, AnswersAsTheEngineThatWasPacked) {
  const test::TemporaryFolder folder;
  std::mt19937 random(5);  // NOLINT(bugprone-random-generator-seed): the same prompts every time
  for (const ModelSpec& spec : {llama_like(), gpt2_like(), neox_like()})
    for (const DataType dtype : {DataType::f32, DataType::f16, DataType::bf16})
      for (const std::vector<WeightFormat>& matrices : {std::vector{float_format(dtype)},
                                                        {formats::int8_weight_only, formats::int8},
                                                        {formats::q4_1},
                                                        {formats::int4_a8, formats::q8_0, formats::bf16}}) {
        const std::vector<WeightFormat> formats = test::formats_in_turn(spec, matrices);
        const PackedStore store = lively_store(folder, spec, dtype, formats);
        const EngineConfig config = config_of(store);
        EXPECT_EQ(config.dtype, dtype);
        EXPECT_EQ(config.weight_formats, formats);
        const std::unique_ptr<EngineCore> from_store = engine_from_store(store, small(config), device(3)),
                                          direct = make_engine(spec, {.config = small(config)});
        const std::vector<std::int32_t> tokens = random_tokens(random, spec.vocab, 21);
        ASSERT_EQ(from_store->logits(tokens), direct->logits(tokens)) << spec.family << ", " << to_string(matrices[0]);
        const Request request{.prompt = tokens, .sampling = {.max_tokens = 8}};
        ASSERT_EQ(generate(*from_store, request), generate(*direct, request));
      }
}

TEST(StoreEngine, EncodersToo) {
  const test::TemporaryFolder folder;
  const ModelSpec spec = bert_like();
  const PackedStore store =
      lively_store(folder, spec, DataType::f32, test::formats_in_turn(spec, {formats::int8_weight_only}));
  const std::unique_ptr<EngineCore> from_store = engine_from_store(store, small(config_of(store)), device()),
                                    direct = make_engine(spec, {.config = small(config_of(store))});
  for (const Pooling pooling : {Pooling::none, Pooling::mean, Pooling::cls, Pooling::pooler})
    EXPECT_EQ(from_store->encode({{1, 2, 3}, {4}}, pooling), direct->encode({{1, 2, 3}, {4}}, pooling));
}

TEST(StoreEngine, EveryFormatRunsWithEveryDtype) {
  const test::TemporaryFolder folder;
  const ModelSpec spec = gpt2_like();
  for (const WeightFormat& format : all_formats()) {
    const PackedStore store = lively_store(folder, spec, DataType::bf16, test::formats_in_turn(spec, {format}));
    for (const DataType dtype : {DataType::f32, DataType::f16, DataType::bf16}) {
      EngineConfig config = small(config_of(store));
      config.dtype = dtype;
      const std::unique_ptr<EngineCore> from_store = engine_from_store(store, config, device()),
                                        direct = make_engine(spec, {.config = config});
      EXPECT_EQ(from_store->logits(std::vector{1, 2, 3}), direct->logits(std::vector{1, 2, 3})) << to_string(format);
    }
  }
}

TEST(StoreEngine, TheStoreMayGoAfterwards) {
  std::unique_ptr<EngineCore> engine;
  std::vector<float> expected;
  {
    const test::TemporaryFolder folder;
    const PackedStore store =
        lively_store(folder, llama_like(), DataType::f32, test::formats_in_turn(llama_like(), {formats::int8}));
    std::uint64_t done = 0, total = 0;
    engine = engine_from_store(store, small(config_of(store)), device(),
                               [&](std::uint64_t now, std::uint64_t all) { done = now, total = all; });
    EXPECT_GT(done, 0U);
    EXPECT_EQ(done, total);
    expected = engine->logits(std::vector{1, 2, 3});
  }
  EXPECT_EQ(engine->logits(std::vector{1, 2, 3}), expected);
}

TEST(StoreEngine, RefusesOtherFormatsAndDamage) {
  const test::TemporaryFolder folder;
  const PackedStore store =
      lively_store(folder, llama_like(), DataType::f32, test::formats_in_turn(llama_like(), {formats::int8}));
  EngineConfig config = config_of(store);
  config.weight_formats.clear();
  test::expect_error(ErrorCode::invalid_argument, {"model.lamella", "pack the model again", "config_of"},
                     [&] { static_cast<void>(engine_from_store(store, config, device())); });

  std::vector<WeightDeclaration> declared = declare_weights(llama_like());
  ResidentWeights weights(declared);
  fill_lively(weights, 1);
  std::string bytes = test::store_of(llama_like(), DataType::f32, weights);
  bytes[bytes.size() / 2] ^= 1;
  const PackedStore damaged = open_store(folder.write("damaged", bytes));
  test::expect_error(ErrorCode::invalid_checkpoint, {"damaged", "segment", "is damaged"},
                     [&] { static_cast<void>(engine_from_store(damaged, config_of(damaged), device())); });
}

TEST(StoreEngine, D1_TheBudgetIsCheckedBeforeTheFirstWeightIsRead) {
  const test::TemporaryFolder folder;
  const PackedStore store =
      lively_store(folder, llama_like(), DataType::f32, test::formats_in_turn(llama_like(), {formats::f32}));
  EngineConfig config = config_of(store);
  config.memory_budget = 1000;
  test::expect_error(ErrorCode::out_of_memory, {"weights"}, [&] {
    static_cast<void>(
        engine_from_store(store, config, device(), [](std::uint64_t, std::uint64_t) { ADD_FAILURE() << "read"; }));
  });
}

}  // namespace
}  // namespace lamella::testing
