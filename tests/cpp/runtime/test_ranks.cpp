// Engines whose layers are shared by several ranks, beside engines of one.
#include <gtest/gtest.h>

#include "models.h"
#include "parts.h"

namespace lamella::testing {
namespace {

std::unique_ptr<EngineCore> make_ranks(const ModelSpec& spec, int ranks, const EngineChoice& choice = {}) {
  std::vector<std::unique_ptr<Device>> devices;
  for (int rank = 0; rank < ranks; ++rank)
    devices.push_back(
        std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = 1 + rank % 2, .kernels = choice.kernels}));
  return std::make_unique<EngineCore>(spec, choice.config, std::move(devices), [&](ResidentWeights& own, ThreadTeam&) {
    std::vector<WeightDeclaration> declared = declare_weights(spec);
    for (std::size_t i = 0; i < declared.size(); ++i) declared[i].format = own.declarations()[i].format;
    ResidentWeights whole(std::move(declared));
    fill_lively(whole, choice.seed);
    take_parts(whole, own);
  });
}

TEST(Ranks, GiveTheLogitsAndTokensOfOne) {
  for (const ModelSpec& spec : {llama_like(3), gpt2_like(3), neox_like(3)}) {
    const auto one = make_engine(spec);
    std::mt19937 random(7);
    const std::vector<std::int32_t> prompt = random_tokens(random, spec.vocab, 40);  // two chunks
    const std::vector<float> logits = one->logits(prompt);
    const Request greedy{.prompt = prompt, .sampling = {.max_tokens = 12}};
    const Request drawn{.prompt = prompt, .sampling = {.max_tokens = 12, .temperature = 0.9F, .seed = 3}};
    for (int ranks = 2; ranks <= 4; ++ranks) {
      const auto several = make_ranks(spec, ranks);
      EXPECT_EQ(several->tensor_ranks(), ranks);
      EXPECT_LT(relative_error(several->logits(prompt), logits), 1e-5) << spec.family << " " << ranks;
      EXPECT_EQ(generate(*several, greedy), generate(*one, greedy)) << spec.family << " " << ranks;
      EXPECT_EQ(generate(*several, drawn), generate(*one, drawn)) << spec.family << " " << ranks;
      expect_idle(*several);
      // Together the ranks hold the model, and a little more: norms, and lookup tables of positions.
      EXPECT_GE(several->stats().bytes_weights, one->stats().bytes_weights * 9 / 10);
    }
  }
}

TEST(Ranks, SharePrefixesPreemptAndBatchLikeOne) {
  const ModelSpec spec = llama_like(2);
  EngineChoice choice;
  choice.config.max_model_len = 64;
  const auto roomy = make_engine(spec, choice);
  choice.config.kv_cache_memory =
      roomy->stats().bytes_kv / static_cast<std::uint64_t>(roomy->stats().kv_blocks_total) * 8;
  const auto several = make_ranks(spec, 3, choice);  // eight blocks' bytes: sequences push each other out
  std::mt19937 random(11);
  std::vector<Request> requests;
  const std::vector<std::int32_t> prefix = random_tokens(random, spec.vocab, 16);
  for (int i = 0; i < 6; ++i) {
    std::vector<std::int32_t> prompt = prefix;
    for (const std::int32_t token : random_tokens(random, spec.vocab, 5)) prompt.push_back(token);
    requests.push_back({.prompt = std::move(prompt), .sampling = {.max_tokens = 24}});
  }
  Listener listener(*several);
  const std::vector<RequestId> ids = listener.submit_all(requests);
  for (std::size_t i = 0; i < ids.size(); ++i)
    EXPECT_EQ(listener.finish(ids[i]).tokens, generate(*roomy, requests[i])) << i;
  EXPECT_GT(several->stats().loop.preemptions + several->stats().loop.reused_tokens, 0);
  expect_idle(*several);
  expect_balanced(*several);
}

TEST(Ranks, EncodersAgreeWithOneRank) {
  const ModelSpec spec = bert_like(3);
  const auto one = make_engine(spec);
  const auto several = make_ranks(spec, 3);
  std::mt19937 random(5);
  const std::vector<std::vector<std::int32_t>> inputs = {random_tokens(random, spec.vocab, 9),
                                                         random_tokens(random, spec.vocab, 21)};
  for (const Pooling pooling : {Pooling::none, Pooling::mean, Pooling::cls, Pooling::pooler}) {
    const auto expected = one->encode(inputs, pooling), found = several->encode(inputs, pooling);
    for (std::size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(relative_error(found[i], expected[i]), 1e-5);
  }
}

TEST(Ranks, ExplainNamesCollectives) {
  const auto several = make_ranks(llama_like(1), 2);
  const std::vector<ExplainRow> rows = several->explain(StepShape::uniform(1, 1, 8));
  EXPECT_EQ(std::ranges::count(rows, "all_reduce", &ExplainRow::op), 3);
  EXPECT_EQ(std::ranges::count(rows, "best_of_ranks", &ExplainRow::op), 1);
}

TEST(Ranks, MoreThanTheModelHasHeadsAreRefused) {
  try {
    static_cast<void>(make_ranks(llama_like(1), 7));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_EQ(std::string(error.what()),
              "tensor_parallel_size is 7, but the query heads of layer 0 are 6; expected at most 6 for this model");
  }
}

}  // namespace
}  // namespace lamella::testing
