// The engine: weights, KV cache, plans and the loop that feeds them. Everything that callers in any language see goes
// through it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lamella/request.h"
#include "lamella/types.h"
#include "model/model_spec.h"
#include "plan/build_plan.h"
#include "runtime/device.h"
#include "runtime/explain.h"
#include "runtime/memory_budget.h"
#include "runtime/scheduler.h"

namespace lamella {

struct EngineConfig {
  DataType dtype = DataType::f32;
  std::vector<WeightFormat> weight_formats = {};  // parallel to declare_weights(spec); empty: every matrix as dtype
  bool deep_fusion = true;
  std::int64_t max_num_seqs = 32;
  std::int64_t max_model_len = 0;  // tokens; 0: the model's own context
  /// Tokens a step. Raised to max_num_seqs, since every generating sequence brings one, and for encoders, which never cut
  /// an input, to max_model_len.
  std::int64_t max_num_batched_tokens = 512;
  std::optional<std::uint64_t> memory_budget;  // bytes; none: what the machine has free
};

struct EngineStats {
  std::int64_t kv_blocks_total = 0, kv_blocks_used = 0;
  std::int64_t received = 0, running = 0, finished = 0, cancelled = 0, rejected = 0, failed = 0;
  std::uint64_t bytes_weights = 0, bytes_kv = 0, bytes_activations = 0;
};

/// How encode() turns an encoder's rows into its result.
enum class Pooling : std::uint8_t { none, mean, cls, pooler };

/// Runs one model on one device. Thread-safe: any thread may submit, cancel and poll; `step` runs one step at a time,
/// whoever calls it, so that callers who step until their own request is over serve one another.
class Engine {
 public:
  /// Called between two steps of a call that takes several; what it throws ends the call, which then leaves nothing
  /// behind. Other threads' steps may run meanwhile.
  using Interrupt = std::function<void()>;
  /// Puts weights where the engine wants them; called once, after the memory budget was checked.
  using FillWeights = std::function<void(ResidentWeights&, ThreadTeam&)>;

  /// Plans, checks the budget, then loads. Errors: those of validate, build_plan, split_memory and `fill`, and
  /// invalid_argument for limits outside their range.
  Engine(ModelSpec spec, EngineConfig config, std::unique_ptr<Device> device, const FillWeights& fill);
  ~Engine();

  /// Checks the request and queues it. Errors: invalid_argument, context_too_long; a refused request leaves no trace
  /// but a count.
  [[nodiscard]] RequestId submit(Request request);
  /// Runs one step of whatever is queued; false when there is nothing to do.
  bool step();
  /// What is new about the request; after its last Progress the id is unknown (invalid_argument).
  [[nodiscard]] Progress poll(RequestId id);
  /// Ends the request before its next step; unknown ids are ignored, since it may have ended by itself.
  void cancel(RequestId id);
  /// Checks that every request could be accepted, before any is: the message names the index of the first that could
  /// not. All of them then count as received and rejected.
  void validate_requests(const std::vector<Request>& requests);

  /// Logits of every position, [tokens][vocabulary]. Errors: as submit, and overloaded while other requests hold the KV
  /// cache.
  [[nodiscard]] std::vector<float> logits(std::span<const std::int32_t> tokens, const Interrupt& interrupt = {});
  /// For encoders: per input [hidden], or [tokens][hidden] without pooling. Errors: context_too_long for an input longer
  /// than the context; numeric, naming the input, where its rows hold NaN or infinity. An error loses all inputs.
  [[nodiscard]] std::vector<std::vector<float>> encode(const std::vector<std::vector<std::int32_t>>& inputs,
                                                       Pooling pooling, const Interrupt& interrupt = {});

  /// The plan's ops with cost, roofline and measured time for a uniform step; runs it three times on scratch KV blocks.
  /// Errors: invalid_argument for a step beyond the engine's limits, out_of_memory for one that the whole KV cache could
  /// not hold, overloaded while other requests hold too much of it.
  [[nodiscard]] std::vector<ExplainRow> explain(const StepShape& shape);
  [[nodiscard]] const Plan& plan() const { return executor(default_output()).plan(); }
  [[nodiscard]] EngineStats stats() const;
  [[nodiscard]] const ModelSpec& spec() const noexcept { return spec_; }
  [[nodiscard]] const EngineConfig& config() const noexcept { return config_; }
  [[nodiscard]] Device& device() noexcept { return *device_; }
  [[nodiscard]] bool is_encoder() const noexcept { return spec_.head.kind == HeadKind::hidden; }
  /// What the device can do at most, measured at the first call within the memory budget; bytes_per_s is 0 where the
  /// budget leaves too little for that.
  [[nodiscard]] const Roofline& roofline();

 private:
  [[nodiscard]] PlanOutput default_output() const noexcept {
    return is_encoder() ? PlanOutput::hidden : PlanOutput::logits;
  }
  /// What a plan of this model can return.
  [[nodiscard]] std::vector<PlanOutput> outputs() const;
  [[nodiscard]] Plan make_plan(PlanOutput output) const;
  [[nodiscard]] Executor& executor(PlanOutput output) const { return *executors_.at(output); }
  void validate_request(const Request& request) const;
  void validate_tokens(std::span<const std::int32_t> tokens) const;
  void count_rejected(std::size_t requests);
  void commit(const std::vector<Scheduled>& parts, std::span<const float> logits);
  void take_token(Sequence& sequence, std::span<const float> logits);
  void end(Sequence& sequence, FinishReason reason, std::optional<Error> error = {});

  ModelSpec spec_;
  EngineConfig config_;
  std::unique_ptr<Device> device_;
  MemorySplit memory_;
  std::unique_ptr<ResidentWeights> weights_;
  std::unique_ptr<KvMemory> kv_memory_;
  std::unique_ptr<KvBlockPool> kv_blocks_;
  std::unique_ptr<Scheduler> scheduler_;
  SamplerScratch sampler_scratch_;
  Allocation workspace_;  // of every executor: one runs at a time
  std::map<PlanOutput, std::unique_ptr<Executor>> executors_;
  Roofline roofline_;

  std::mutex whole_sequence_;  // one logits() at a time: two would refuse each other the KV cache; taken first
  std::mutex stepping_;  // one step at a time; taken before state_
  mutable std::mutex state_;  // scheduler, blocks and counters
  EngineStats counters_;
};

}  // namespace lamella
