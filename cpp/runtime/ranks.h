// The ranks of an engine that are threads of this process: each a device with its part of every layer, or its layers.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/thread_team.h"
#include "comm/topology.h"
#include "memory/allocation.h"
#include "memory/kv_pool.h"
#include "memory/resident_weights.h"
#include "plan/build_plan.h"
#include "runtime/device.h"

namespace lamella {

/// Ranks that share every layer (the paper's IV-A) or are the stages of a pipeline (IV-B), or both, with their memory and
/// executors. One rank is the plain case: its plans are those of the whole model, and nothing meets.
class Ranks {
 public:
  using FillWeights = std::function<void(RankWeights, ThreadTeam&)>;

  /// A rank a device, in order of the topology's numbers: tensor ranks side by side, stage after stage. Errors: out_of_memory
  /// where the operating system gives no thread for one.
  Ranks(std::vector<std::unique_ptr<Device>> devices, const comm::ParallelSizes& sizes);

  [[nodiscard]] int size() const noexcept { return static_cast<int>(ranks_.size()); }
  [[nodiscard]] const comm::Topology& topology() const noexcept { return topology_; }
  [[nodiscard]] int stages() const noexcept { return topology_.sizes().pipeline; }
  /// Of the rank that samples: the first of the last stage.
  [[nodiscard]] Device& device() const noexcept { return *ranks_[first_of(stages() - 1)].device; }
  /// Threads of all ranks together.
  [[nodiscard]] int threads() const noexcept;
  /// "cpu (avx512, 2 threads)", or "2 ranks: cpu (avx512, 1 thread)".
  [[nodiscard]] std::string device_name() const;

  /// Shares the layers out among the stages. `whole` is a plan of the whole model. Once, before cut().
  void share_layers(const Plan& whole);
  /// Every rank's plan for a plan of the whole model: cut, and fused where that is asked for and the device has the kernels.
  [[nodiscard]] std::vector<Plan> cut(const Plan& whole, bool deep_fusion) const;

  /// Bytes that plans of all ranks take, before anything is taken.
  [[nodiscard]] std::uint64_t workspace_bytes(const std::vector<std::vector<Plan>>& plans) const;
  [[nodiscard]] static std::uint64_t weight_bytes(const std::vector<Plan>& plans);
  [[nodiscard]] static std::uint64_t kv_bytes_per_block(const std::vector<Plan>& plans);

  /// Takes the memory and binds an executor to each plan; `plans` by output, then rank. Once, before anything below. Errors:
  /// out_of_memory.
  void prepare(std::map<PlanOutput, std::vector<Plan>> plans, const ExecutorOptions& options);
  /// Fills every rank's weights with as many threads as all ranks have. Errors: those of `fill`.
  void fill(const FillWeights& fill);

  /// Runs a plan on all ranks at once and returns what the rank that samples finds; all of its stage find the same. A rank that
  /// fails ends what the others wait for, and every later run: rank_failed, naming it.
  [[nodiscard]] Executor& executor(PlanOutput output) const { return *whole_.at(output); }
  /// Runs one stage of it: the tensor ranks of that stage. Stages run at the same time, each on a thread of its caller's, and
  /// each the same steps in the same order. What it says of itself is of the stage's first rank.
  [[nodiscard]] Executor& stage_executor(PlanOutput output, int stage) const {
    return *stages_.at(output)[static_cast<std::size_t>(stage)];
  }
  /// Runs a step on all ranks and measures it: seconds of each op of the first rank of each stage.
  [[nodiscard]] std::vector<std::vector<double>> run_timed(PlanOutput output, const StepInput& step);
  /// The roofs of one rank while all of them are busy. Errors: those of Device::measure_roofline.
  [[nodiscard]] Roofline measure_roofline(std::optional<std::uint64_t> left_of_budget);
  /// Zeros in these blocks of every rank's KV cache.
  void clear_kv(std::span<const std::int32_t> blocks);

  [[nodiscard]] std::uint64_t bytes_weights() const noexcept;
  [[nodiscard]] std::uint64_t bytes_kv() const noexcept;
  [[nodiscard]] std::uint64_t bytes_workspace() const noexcept;

 private:
  struct Rank {
    std::unique_ptr<Device> device;
    std::unique_ptr<comm::Communicator> tensor, pipeline;  // none of one rank
    std::unique_ptr<ResidentWeights> weights;
    std::unique_ptr<KvMemory> kv;
    Allocation workspace;  // of every executor: one runs at a time
    std::map<PlanOutput, std::unique_ptr<Executor>> executors;
  };
  [[nodiscard]] std::size_t first_of(int stage) const noexcept {
    return static_cast<std::size_t>(stage) * static_cast<std::size_t>(topology_.sizes().tensor);
  }
  void join(const comm::GroupMembers& group, std::vector<std::unique_ptr<comm::Communicator>> ends,
            std::unique_ptr<comm::Communicator> Rank::* end);
  [[nodiscard]] Executor* joined(PlanOutput output, std::size_t first, std::size_t count, std::size_t answering,
                                 ThreadTeam* threads);

  comm::Topology topology_;
  std::vector<Rank> ranks_;
  std::vector<ShardRange> layers_;  // of each stage
  std::unique_ptr<ThreadTeam> threads_;  // a thread a rank; none with one rank
  std::vector<std::unique_ptr<ThreadTeam>> stage_threads_;  // of each stage; none with one tensor rank, or one stage
  std::vector<std::unique_ptr<Executor>> joined_;
  std::map<PlanOutput, Executor*> whole_;
  std::map<PlanOutput, std::vector<Executor*>> stages_;
};

}  // namespace lamella
