// Engines whose layers are shared by several ranks, beside engines of one.
#include <gtest/gtest.h>

#include <stdexcept>

#include "base/check.h"
#include "models.h"
#include "parts.h"

namespace lamella::testing {
namespace {

std::unique_ptr<EngineCore> make_ranks(const ModelSpec& spec, const comm::ParallelSizes& sizes,
                                       EngineChoice choice = {}) {
  std::vector<std::unique_ptr<Device>> devices;
  for (int rank = 0; rank < sizes.ranks(); ++rank)
    devices.push_back(
        std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = 1 + rank % 2, .kernels = choice.kernels}));
  choice.config.parallel = sizes;
  return std::make_unique<EngineCore>(spec, choice.config, std::move(devices), [&](RankWeights ranks, ThreadTeam&) {
    std::vector<WeightDeclaration> declared = declare_weights(spec);
    if (!choice.config.weight_formats.empty()) set_formats(declared, choice.config.weight_formats);
    else
      for (WeightDeclaration& weight : declared)
        if (!is_vector(weight.id.slot)) weight.format = float_format(choice.config.dtype);
    ResidentWeights whole(std::move(declared));
    fill_lively(whole, choice.seed);
    for (ResidentWeights* own : ranks) take_parts(whole, *own);
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
      const auto several = make_ranks(spec, {.tensor = ranks});
      EXPECT_EQ(several->ranks().size(), ranks);
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
  const auto several = make_ranks(spec, {.tensor = 3}, choice);  // eight blocks' bytes: sequences push each other out
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
  const auto several = make_ranks(spec, {.tensor = 3});
  std::mt19937 random(5);
  const std::vector<std::vector<std::int32_t>> inputs = {random_tokens(random, spec.vocab, 9),
                                                         random_tokens(random, spec.vocab, 21)};
  for (const Pooling pooling : {Pooling::none, Pooling::mean, Pooling::cls, Pooling::pooler}) {
    const auto expected = one->encode(inputs, pooling), found = several->encode(inputs, pooling);
    for (std::size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(relative_error(found[i], expected[i]), 1e-5);
  }
}

/// Logits and greedy tokens of several prompts that are there at once, and of one that samples.
struct Said {
  std::vector<std::vector<float>> logits;
  std::vector<std::vector<std::int32_t>> tokens;

  bool operator==(const Said&) const = default;
};
Said said(EngineCore& engine, const std::vector<std::vector<std::int32_t>>& prompts) {
  Said all;
  std::vector<Request> requests;
  for (const std::vector<std::int32_t>& prompt : prompts) {
    all.logits.push_back(engine.logits(prompt));
    const bool draws = requests.size() % 2 == 1;
    requests.push_back(
        {.prompt = prompt, .sampling = {.max_tokens = 9, .temperature = draws ? 0.8 : 0.0, .seed = requests.size()}});
  }
  Listener listener(engine);
  for (const RequestId id : listener.submit_all(requests)) all.tokens.push_back(listener.finish(id).tokens);
  expect_idle(engine);
  expect_balanced(engine);
  return all;
}

TEST(Ranks, StagesOfAPipelineGiveTheBitsOfOne) {
  std::mt19937 random(13);
  for (const ModelSpec& spec : {llama_like(4), gpt2_like(5), neox_like(4)}) {
    for (const DataType dtype : {DataType::f32, DataType::bf16}) {
      std::vector<std::vector<std::int32_t>> prompts;
      for (const std::size_t length : {40, 3, 17, 1, 33}) prompts.push_back(random_tokens(random, spec.vocab, length));
      EngineChoice choice;
      choice.config.dtype = dtype;
      const auto one = make_engine(spec, choice);
      const Said expected = said(*one, prompts);
      for (int stages = 2; stages <= 4; ++stages) {
        for (const PipelineSchedule schedule :
             {PipelineSchedule::hybrid, PipelineSchedule::single, PipelineSchedule::training}) {
          choice.config.pipeline.schedule = schedule;
          const auto several = make_ranks(spec, {.pipeline = stages}, choice);
          EXPECT_EQ(several->ranks().stages(), stages);
          EXPECT_EQ(said(*several, prompts), expected)
              << spec.family << " " << to_string(dtype) << " " << stages << " stages, " << to_string(schedule);
        }
      }
    }
  }
}

TEST(Ranks, StagesOfTensorRanksAgreeWithTensorRanks) {
  std::mt19937 random(17);
  const ModelSpec spec = llama_like(4);
  const std::vector<std::vector<std::int32_t>> prompts = {random_tokens(random, spec.vocab, 21),
                                                          random_tokens(random, spec.vocab, 5)};
  const Said expected = said(*make_ranks(spec, {.tensor = 2}), prompts);
  EXPECT_EQ(said(*make_ranks(spec, {.tensor = 2, .pipeline = 2}), prompts), expected);
  EXPECT_EQ(said(*make_ranks(spec, {.tensor = 2, .pipeline = 3}), prompts), expected);
}

TEST(Ranks, PipelinesSharePrefixesAndPreempt) {
  const ModelSpec spec = llama_like(3);
  EngineChoice choice;
  choice.config.max_model_len = 64;
  const auto roomy = make_engine(spec, choice);
  choice.config.kv_cache_memory =
      roomy->stats().bytes_kv / static_cast<std::uint64_t>(roomy->stats().kv_blocks_total) * 8;
  const auto several = make_ranks(spec, {.pipeline = 2}, choice);
  std::mt19937 random(19);
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

TEST(Ranks, EncodersInStagesGiveTheBitsOfOne) {
  const ModelSpec spec = bert_like(3);
  const auto one = make_engine(spec);
  const auto several = make_ranks(spec, {.pipeline = 3});
  std::mt19937 random(23);
  const std::vector<std::vector<std::int32_t>> inputs = {random_tokens(random, spec.vocab, 9),
                                                         random_tokens(random, spec.vocab, 21)};
  for (const Pooling pooling : {Pooling::none, Pooling::mean, Pooling::cls, Pooling::pooler})
    EXPECT_EQ(several->encode(inputs, pooling), one->encode(inputs, pooling));
}

/// A rank's device, and executors of it that throw from the n-th run on.
class BreakingDevice final : public Device {
 public:
  explicit BreakingDevice(int sound_runs) : sound_runs_(sound_runs) {}

  std::unique_ptr<Executor> executor(Plan plan, const Borrowed& memory, const ExecutorOptions& options) override {
    return std::make_unique<Breaking>(own_.executor(std::move(plan), memory, options), sound_runs_);
  }
  [[nodiscard]] bool has_fused_kernels() const noexcept override { return own_.has_fused_kernels(); }
  [[nodiscard]] std::size_t workspace_bytes(const Plan& plan) const override { return own_.workspace_bytes(plan); }
  [[nodiscard]] std::uint64_t available_memory() const override { return own_.available_memory(); }
  [[nodiscard]] ThreadTeam& team() noexcept override { return own_.team(); }
  [[nodiscard]] const LogitKernels& logit_kernels() const noexcept override { return own_.logit_kernels(); }
  [[nodiscard]] Roofline measure_roofline(std::optional<std::uint64_t> left) override {
    return own_.measure_roofline(left);
  }
  [[nodiscard]] std::string name() const override { return own_.name(); }

 private:
  class Breaking final : public Executor {
   public:
    Breaking(std::unique_ptr<Executor> own, int& sound_runs) : own_(std::move(own)), sound_runs_(sound_runs) {}
    [[nodiscard]] const Plan& plan() const noexcept override { return own_->plan(); }
    [[nodiscard]] std::string kernel_name(std::size_t op) const override { return own_->kernel_name(op); }
    [[nodiscard]] Arithmetic arithmetic(std::size_t op) const override { return own_->arithmetic(op); }
    std::vector<double> run_timed(const StepInput& step) override { return own_->run_timed(step); }
    std::span<const float> run(const StepInput& step) override {
      if (sound_runs_-- <= 0) throw std::runtime_error("its memory is gone");
      return own_->run(step);
    }

   private:
    std::unique_ptr<Executor> own_;
    int& sound_runs_;
  };

  cpu::CpuDevice own_{cpu::CpuOptions{.threads = 1}};
  int sound_runs_;
};

TEST(Ranks, OneThatThrowsEndsItsEngineAndNoOther) {
  const ModelSpec spec = llama_like(3);
  const auto other = make_ranks(spec, {.tensor = 2});
  const Request request{.prompt = {1, 2, 3}, .sampling = {.max_tokens = 12}};
  const std::vector<std::int32_t> expected = generate(*other, request);
  for (const comm::ParallelSizes& sizes :
       {comm::ParallelSizes{.tensor = 3}, {.pipeline = 3}, {.tensor = 2, .pipeline = 2}}) {
    for (int bad = 0; bad < sizes.ranks(); ++bad) {
      std::vector<std::unique_ptr<Device>> devices;
      for (int rank = 0; rank < sizes.ranks(); ++rank)
        devices.push_back(std::make_unique<BreakingDevice>(rank == bad ? 5 : 1000));
      EngineCore engine(spec, {.parallel = sizes, .max_num_seqs = 4, .max_num_batched_tokens = 32}, std::move(devices),
                        [&](RankWeights ranks, ThreadTeam&) {
                          for (ResidentWeights* own : ranks) fill_lively(*own, 1);
                        });
      Listener listener(engine);
      const std::vector<RequestId> ids = listener.submit_all({request, request, request});
      for (const RequestId id : ids) {
        const Ended& ended = listener.finish(id);
        EXPECT_EQ(ended.reason, FinishReason::error);
        ASSERT_TRUE(ended.error.has_value());
        EXPECT_EQ(ended.error->code(), ErrorCode::rank_failed) << ended.error->what();
        EXPECT_EQ(std::string(ended.error->what()), concat("rank ", bad, " failed: its memory is gone"));
      }
      try {
        static_cast<void>(generate(engine, request));
        ADD_FAILURE() << "a dead engine took a request";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::engine_dead);
      }
      expect_balanced(engine);
    }
  }
  EXPECT_EQ(generate(*other, request), expected);
}

TEST(Ranks, StageRunsAreRecorded) {
  const auto several = make_ranks(llama_like(4), {.pipeline = 2});
  several->record_stage_runs(true);
  static_cast<void>(generate(*several, {.prompt = {1}, .sampling = {.max_tokens = 6}}));
  const std::vector<StageRun> runs = several->stage_runs();
  ASSERT_EQ(runs.size(), 12U);  // six steps in two stages
  for (const StageRun& run : runs) {
    EXPECT_LT(run.begin_s, run.end_s);
    EXPECT_EQ(run.sequences, 1);
    const auto other = std::ranges::find_if(
        runs, [&](const StageRun& each) { return each.step == run.step && each.stage == 1 - run.stage; });
    ASSERT_NE(other, runs.end());
    EXPECT_TRUE(run.stage == 1 || run.end_s <= other->begin_s);
  }
  several->record_stage_runs(false);
  EXPECT_TRUE(several->stage_runs().empty());
  EXPECT_GT(several->step_times().fixed_s, 0.0);
}

TEST(Ranks, ExplainHasTheOpsOfAllStages) {
  const auto one = make_engine(llama_like(3));
  const auto several = make_ranks(llama_like(3), {.pipeline = 3});
  const std::vector<ExplainRow> rows = several->explain(StepShape::uniform(2, 1, 8)),
                                expected = one->explain(StepShape::uniform(2, 1, 8));
  EXPECT_EQ(std::ranges::count(rows, "send", &ExplainRow::op), 2);
  EXPECT_EQ(std::ranges::count(rows, "receive", &ExplainRow::op), 2);
  const auto streamed = [](const std::vector<ExplainRow>& all) {
    std::int64_t bytes = 0;
    for (const ExplainRow& row : all) bytes += row.bytes_streamed;
    return bytes;
  };
  EXPECT_EQ(streamed(rows), streamed(expected));
}

TEST(Ranks, MoreStagesThanLayersAreRefused) {
  try {
    static_cast<void>(make_ranks(llama_like(2), {.pipeline = 3}));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_EQ(std::string(error.what()),
              "pipeline_parallel_size is 3, but the model has 2 layers; expected at most that");
  }
}

TEST(Ranks, ExplainNamesCollectives) {
  const auto several = make_ranks(llama_like(1), {.tensor = 2});
  const std::vector<ExplainRow> rows = several->explain(StepShape::uniform(1, 1, 8));
  EXPECT_EQ(std::ranges::count(rows, "all_reduce", &ExplainRow::op), 3);
  EXPECT_EQ(std::ranges::count(rows, "best_of_ranks", &ExplainRow::op), 1);
}

TEST(Ranks, MoreThanTheModelHasHeadsAreRefused) {
  try {
    static_cast<void>(make_ranks(llama_like(1), {.tensor = 7}));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_EQ(std::string(error.what()),
              "tensor_parallel_size is 7, but the query heads of layer 0 are 6; expected at most 6 for this model");
  }
}

}  // namespace
}  // namespace lamella::testing
