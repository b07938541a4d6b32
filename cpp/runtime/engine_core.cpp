#include "runtime/engine_core.h"

#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "model/rope.h"
#include "plan/kv_groups.h"
#include "plan/verify.h"

namespace lamella {
namespace {

/// Rows of logits that a step can return at most when logits() asks for every position: bounds the [rows][vocabulary]
/// buffer.
constexpr std::int64_t most_logit_rows = 64;

EngineConfig resolved(EngineConfig config, const ModelSpec& spec) {
  const auto within = [](std::string_view field, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value < least || value > most)
      throw Error(ErrorCode::invalid_argument, concat(field, " is ", value, "; expected ", least, " to ", most));
  };
  if (config.kv_cache_dtype == DataType::i32)
    throw Error(ErrorCode::invalid_argument,
                "kv_cache_dtype is int32; expected float32, float16, bfloat16 or int8, or none for the dtype");
  if (config.max_model_len == 0) config.max_model_len = spec.max_positions;
  within("max_model_len", config.max_model_len, 1, spec.max_positions);
  within("max_num_seqs", config.max_num_seqs, 1, 4096);
  within("steps_in_flight", config.steps_in_flight, 1, 16);
  within("max_num_batched_tokens", config.max_num_batched_tokens, 1, 1 << 20);
  // Every generating sequence brings a token, so a step must have room for all of them.
  config.max_num_batched_tokens = std::max(config.max_num_batched_tokens, config.max_num_seqs);
  validate(config.pipeline);
  if (const int stages = config.parallel.pipeline; stages > 1)
    config.steps_in_flight =
        std::clamp(std::max({config.steps_in_flight, 2 * stages, config.pipeline.prompt_micro_batches,
                             config.pipeline.generation_micro_batches}),
                   1, most_micro_batches);
  if (spec.head.kind == HeadKind::hidden)
    config.max_num_batched_tokens = std::max(config.max_num_batched_tokens, config.max_model_len);
  return config;
}

std::vector<std::unique_ptr<Device>> just(std::unique_ptr<Device> device) {
  std::vector<std::unique_ptr<Device>> one;
  one.push_back(std::move(device));
  return one;
}

/// Whether K of a token depends on how long its sequence is, so that equal beginnings do not have equal caches.
bool depends_on_length(const ModelSpec& spec) {
  return std::ranges::any_of(spec.layers, [](const LayerSpec& layer) {
    return layer.attention.rope && depends_on_length(*layer.attention.rope);
  });
}

}  // namespace

EngineCore::EngineCore(ModelSpec spec, EngineConfig config, std::unique_ptr<Device> device, const FillWeights& fill)
    : EngineCore(std::move(spec), std::move(config), just(std::move(device)), fill) {}

EngineCore::EngineCore(ModelSpec spec, EngineConfig config, std::vector<std::unique_ptr<Device>> devices,
                       const FillWeights& fill)
    : spec_(std::move(spec)), ranks_(std::move(devices), config.parallel), owner_(getpid()) {
  validate(spec_);
  require_shards(spec_, config.parallel.tensor);
  require_stages(spec_, config.parallel.pipeline);
  config_ = resolved(std::move(config), spec_);

  retention_ = {.windows = kv_groups(spec_, KvBlockPool::blocks_for(config_.max_model_len) * kv_block_tokens).windows,
                .tokens_in_flight = config_.max_num_batched_tokens * config_.steps_in_flight};
  memory_.kv_blocks = 1;  // a plan with the smallest pool shows what a block and the activations cost
  ranks_.share_layers(whole_plan(default_output()));
  std::vector<std::vector<Plan>> drafts;
  for (const PlanOutput output : outputs()) drafts.push_back(make_plans(output));
  memory_ = split_memory({.weights = Ranks::weight_bytes(drafts.front()),
                          .activations = ranks_.workspace_bytes(drafts),
                          .kv_bytes_per_block = Ranks::kv_bytes_per_block(drafts.front()),
                          .retention = retention_,
                          .max_num_seqs = config_.max_num_seqs,
                          .max_model_len = config_.max_model_len,
                          .keeps_kv = !is_encoder(),
                          .step_tokens = config_.max_num_batched_tokens,
                          .available = device().available_memory(),
                          .budget = config_.memory_budget,
                          .kv = config_.kv_cache_memory});

  kv_blocks_ = std::make_unique<KvBlockPool>(memory_.kv_blocks);
  std::map<PlanOutput, std::vector<Plan>> plans;
  for (const PlanOutput output : outputs()) plans[output] = make_plans(output);
  ranks_.prepare(std::move(plans), {.sbi_gemm = config_.sbi_gemm});
  ranks_.fill(fill);

  rules_ = {.family = spec_.family,
            .is_encoder = is_encoder(),
            .vocabulary = spec_.vocab,
            .max_model_len = config_.max_model_len,
            .kv_blocks = memory_.kv_blocks,
            .retention = retention_};
  loop_ = std::make_shared<RequestLoop>(
      LoopOptions{.limits = {.max_num_seqs = config_.max_num_seqs,
                             .max_num_batched_tokens = config_.max_num_batched_tokens,
                             .max_rows = most_rows(PlanOutput::logits),
                             .max_blocks_per_sequence = KvBlockPool::blocks_for(config_.max_model_len),
                             .retention = retention_,
                             .reuse_prefixes = config_.prefix_caching && !depends_on_length(spec_)},
                  .vocabulary = spec_.vocab,
                  .steps_in_flight = config_.steps_in_flight,
                  .clock = now_seconds,
                  .logit_kernels = &device().logit_kernels(),
                  .pipeline = config_.pipeline},
      stage_executors(), device().team(), *kv_blocks_,
      [this](std::span<const std::int32_t> blocks) { ranks_.clear_kv(blocks); });
  loop_->start();
}

EngineCore::~EngineCore() {
  if (getpid() == owner_) {
    loop_->close();
  } else {  // after a fork: the loop's thread is the parent's, and what it waits on cannot be destroyed here
    static_cast<void>(new (std::nothrow) std::shared_ptr<RequestLoop>(std::move(loop_)));
  }
}

std::int64_t EngineCore::most_rows(PlanOutput output) const {
  switch (output) {
    case PlanOutput::logits: return std::max(config_.max_num_seqs, most_logit_rows);
    case PlanOutput::hidden: return config_.max_num_batched_tokens;
    default: return config_.max_num_seqs;
  }
}

std::vector<const Plan*> EngineCore::plans() const {
  std::vector<const Plan*> all;
  all.reserve(static_cast<std::size_t>(ranks_.stages()));
  for (int stage = 0; stage < ranks_.stages(); ++stage)
    all.push_back(&ranks_.stage_executor(default_output(), stage).plan());
  return all;
}

std::vector<Plan> EngineCore::make_plans(PlanOutput output) const {
  return ranks_.cut(whole_plan(output), config_.deep_fusion);
}

Plan EngineCore::whole_plan(PlanOutput output) const {
  Plan plan = build_plan(spec_, {.dtype = config_.dtype,
                                 .kv_dtype = config_.kv_cache_dtype,
                                 .weight_formats = config_.weight_formats,
                                 .output = output,
                                 .kv_pool_blocks = memory_.kv_blocks,
                                 .bounds = {.tokens = config_.max_num_batched_tokens,
                                            .sequences = config_.max_num_seqs,
                                            .rows = most_rows(output),
                                            .kv_blocks = KvBlockPool::blocks_for(config_.max_model_len)}});
  verify(plan);
  return plan;
}

std::vector<StageExecutors> EngineCore::stage_executors() const {
  std::vector<StageExecutors> stages;
  for (int stage = 0; stage < ranks_.stages() && !is_encoder(); ++stage)
    stages.push_back({.logits = &ranks_.stage_executor(PlanOutput::logits, stage),
                      .greedy = &ranks_.stage_executor(PlanOutput::greedy, stage)});
  return stages;
}

std::vector<PlanOutput> EngineCore::outputs() const {
  if (!is_encoder()) return {PlanOutput::logits, PlanOutput::greedy};
  std::vector<PlanOutput> all = {PlanOutput::hidden, PlanOutput::mean};
  if (spec_.head.pooler) all.push_back(PlanOutput::pooler);
  return all;
}

// ---- whole inputs at once --------------------------------------------------------------------------------------------

std::vector<float> EngineCore::logits(std::span<const std::int32_t> tokens, const Interrupt& interrupt) {
  if (is_encoder())
    throw Error(ErrorCode::invalid_argument, concat(spec_.family, " is an encoder and has no logits; use encode()"));
  return client().logits({tokens.begin(), tokens.end()}, interrupt);
}

// ---- figures ---------------------------------------------------------------------------------------------------------

const Roofline& EngineCore::roofline() {
  loop_->call([&] {  // alone with the machine's threads
    if (roofline_.f32_flops_per_s == 0.0)
      roofline_ = ranks_.measure_roofline(config_.memory_budget ? std::optional(memory_.budget - memory_.total())
                                                                : std::nullopt);
  });
  return roofline_;
}

EngineStats EngineCore::stats() const {
  return {.kv_blocks_total = kv_blocks_->total(),
          .requests = loop_->request_counts(),
          .loop = loop_->loop_counts(),
          .bytes_weights = ranks_.bytes_weights(),
          .bytes_kv = ranks_.bytes_kv(),
          .bytes_activations = ranks_.bytes_workspace()};
}

}  // namespace lamella
