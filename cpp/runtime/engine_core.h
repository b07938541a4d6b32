// The engine: weights, KV cache, plans and the loop that feeds them. Everything that callers in any language see goes
// through it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/topology.h"
#include "lamella/request.h"
#include "lamella/types.h"
#include "model/model_spec.h"
#include "plan/build_plan.h"
#include "runtime/client.h"
#include "runtime/device.h"
#include "runtime/explain.h"
#include "runtime/memory_budget.h"
#include "runtime/ranks.h"
#include "runtime/request_loop.h"

namespace lamella {

struct EngineConfig {
  comm::ParallelSizes parallel = {};  // of the devices that the engine is given; tensor and pipeline
  DataType dtype = DataType::f32;
  std::optional<DataType> kv_cache_dtype = {};  // of K and V: f32, f16, bf16 or i8; none: as dtype
  std::vector<WeightFormat> weight_formats = {};  // parallel to declare_weights(spec); empty: every matrix as dtype
  bool deep_fusion = true;
  bool sbi_gemm = true;
  std::int64_t max_num_seqs = 32;
  std::int64_t max_model_len = 0;  // tokens; 0: the model's own context
  /// Tokens a step. Raised to max_num_seqs, since every generating sequence brings one, and for encoders, which never cut
  /// an input, to max_model_len.
  std::int64_t max_num_batched_tokens = 512;
  std::optional<std::uint64_t> memory_budget;  // bytes; none: what the machine has free
  std::optional<std::uint64_t> kv_cache_memory;  // bytes; none: what split_memory finds fit
  bool prefix_caching = true;  // share the cache of equal beginnings; never where RoPE depends on a sequence's length
  /// Steps that are submitted before the results of earlier ones are taken. A pipeline has at least two a stage.
  int steps_in_flight = 1;
  PipelineOptions pipeline = {};
};

struct EngineStats {
  std::int64_t kv_blocks_total = 0;
  RequestCounts requests;
  LoopCounts loop;
  std::uint64_t bytes_weights = 0, bytes_kv = 0, bytes_activations = 0;
};

/// Runs one model on one device or several, on a thread of its own. Thread-safe: callers get a Client each, or ask for whole inputs
/// at once.
class EngineCore {
 public:
  /// Called now and then during a call that takes long; what it throws ends the call, which then leaves nothing behind.
  using Interrupt = std::function<void()>;
  /// The same, told how many inputs are done.
  using InputsDone = std::function<void(std::size_t done)>;
  /// Puts weights where the engine wants them; called once, after the memory budget was checked.
  using FillWeights = Ranks::FillWeights;

  /// Plans, checks the budget, then loads. Errors: those of validate, build_plan, split_memory and `fill`, and
  /// invalid_argument for limits outside their range.
  EngineCore(ModelSpec spec, EngineConfig config, std::unique_ptr<Device> device, const FillWeights& fill);
  /// The same on several devices, a rank each, in order of config.parallel's topology. Errors also: invalid_argument for a model
  /// that so many ranks cannot share (require_shards, require_stages).
  EngineCore(ModelSpec spec, EngineConfig config, std::vector<std::unique_ptr<Device>> devices,
             const FillWeights& fill);
  ~EngineCore();

  /// Another client of the engine's queue. Errors: std::bad_alloc.
  [[nodiscard]] Client client() const { return {loop_, rules_}; }
  [[nodiscard]] const RequestRules& rules() const noexcept { return rules_; }
  /// Cancels every request, refuses new ones and ends the engine's thread. Errors: as RequestLoop::close().
  void close() { loop_->close(); }

  /// Logits of every position, [tokens][vocabulary]. Errors: as Client::logits, and cancelled where the engine is closed
  /// meanwhile.
  [[nodiscard]] std::vector<float> logits(std::span<const std::int32_t> tokens, const Interrupt& interrupt = {});
  /// For encoders: per input [hidden], or [tokens][hidden] without pooling. Errors: context_too_long for an input longer
  /// than the context; numeric, naming the input, where its rows hold NaN or infinity. An error loses all inputs.
  [[nodiscard]] std::vector<std::vector<float>> encode(const std::vector<std::vector<std::int32_t>>& inputs,
                                                       Pooling pooling, const InputsDone& between_steps = {});

  /// The plan's ops with cost, roofline and measured time for a uniform step; runs it three times on scratch KV blocks.
  /// Errors: invalid_argument for a step beyond the engine's limits, out_of_memory for one that the whole KV cache could
  /// not hold, overloaded while other requests hold too much of it.
  [[nodiscard]] std::vector<ExplainRow> explain(const StepShape& shape);
  /// The plan of each stage's first rank.
  [[nodiscard]] std::vector<const Plan*> plans() const;
  [[nodiscard]] EngineStats stats() const;
  /// When the stages ran which steps, from record_stage_runs(true) on (StepRunner::runs), and what their steps have taken.
  void record_stage_runs(bool record) { loop_->record_runs(record); }
  [[nodiscard]] std::vector<StageRun> stage_runs() const { return loop_->runs(); }
  [[nodiscard]] StepTimes step_times() const { return loop_->step_times(); }
  [[nodiscard]] MicroBatches micro_batches(const MicroBatching::Work& work) const { return loop_->micro_batches(work); }
  [[nodiscard]] const ModelSpec& spec() const noexcept { return spec_; }
  [[nodiscard]] const EngineConfig& config() const noexcept { return config_; }
  /// Of the rank that samples.
  [[nodiscard]] Device& device() noexcept { return ranks_.device(); }
  [[nodiscard]] const Ranks& ranks() const noexcept { return ranks_; }
  [[nodiscard]] bool is_encoder() const noexcept { return spec_.head.kind == HeadKind::hidden; }
  /// What a rank's device can do at most while all ranks are busy, measured at the first call within the memory budget;
  /// bytes_per_s is 0 where the budget leaves too little for that.
  [[nodiscard]] const Roofline& roofline();

 private:
  [[nodiscard]] PlanOutput default_output() const noexcept {
    return is_encoder() ? PlanOutput::hidden : PlanOutput::logits;
  }
  /// Of a model that generates.
  [[nodiscard]] std::vector<StageExecutors> stage_executors() const;
  /// What a plan of this model can return.
  [[nodiscard]] std::vector<PlanOutput> outputs() const;
  [[nodiscard]] Plan whole_plan(PlanOutput output) const;
  /// Every rank's.
  [[nodiscard]] std::vector<Plan> make_plans(PlanOutput output) const;
  /// Rows that a step of such a plan returns at most.
  [[nodiscard]] std::int64_t most_rows(PlanOutput output) const;
  [[nodiscard]] Executor& executor(PlanOutput output) const { return ranks_.executor(output); }
  /// Appends the results of as many further inputs as one step holds.
  void encode_some(const std::vector<std::vector<std::int32_t>>& inputs, PlanOutput output, bool all_rows,
                   std::vector<std::vector<float>>& results);
  ModelSpec spec_;
  EngineConfig config_;
  Ranks ranks_;
  MemorySplit memory_;
  KvRetention retention_;
  std::unique_ptr<KvBlockPool> kv_blocks_;
  Roofline roofline_;
  RequestRules rules_;
  std::shared_ptr<RequestLoop> loop_;  // last: it runs the executors
  pid_t owner_;  // a forked child has none of the threads
};

}  // namespace lamella
