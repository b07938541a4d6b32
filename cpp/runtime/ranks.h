// The ranks of an engine that are threads of this process: each a device with its part of every layer.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_team.h"
#include "comm/communicator.h"
#include "memory/allocation.h"
#include "memory/kv_pool.h"
#include "memory/resident_weights.h"
#include "plan/build_plan.h"
#include "runtime/device.h"

namespace lamella {

/// Ranks that share every layer (the paper's IV-A), with their memory and executors. One rank is the plain case: its plans
/// are those of the whole model, and nothing meets.
class Ranks {
 public:
  using FillWeights = std::function<void(ResidentWeights&, ThreadTeam&)>;

  /// A rank a device. Errors: out_of_memory where the operating system gives no thread for one.
  explicit Ranks(std::vector<std::unique_ptr<Device>> devices);

  [[nodiscard]] int size() const noexcept { return static_cast<int>(ranks_.size()); }
  /// Of the rank that samples.
  [[nodiscard]] Device& device() const noexcept { return *ranks_.front().device; }
  /// Every rank's plan for a plan of the whole model: cut, and fused where that is asked for and the device has the kernels.
  [[nodiscard]] std::vector<Plan> cut(const Plan& whole, bool deep_fusion) const;

  /// Bytes that plans of all ranks take, before anything is taken.
  [[nodiscard]] std::uint64_t workspace_bytes(const std::vector<std::vector<Plan>>& plans) const;
  [[nodiscard]] static std::uint64_t weight_bytes(const std::vector<Plan>& plans);
  [[nodiscard]] static std::uint64_t kv_bytes_per_block(const std::vector<Plan>& plans);

  /// Takes the memory and binds an executor to each plan; `plans` by output, then rank. Once, before anything below. Errors:
  /// out_of_memory.
  void prepare(std::map<PlanOutput, std::vector<Plan>> plans, const ExecutorOptions& options);
  /// Fills every rank's weights, one rank after the other, with as many threads as all ranks have. Errors: those of `fill`.
  void fill(const FillWeights& fill);

  /// Runs a plan on all ranks at once and returns what the first finds; all find the same. A rank that fails ends what the
  /// others wait for, and every later run: rank_failed, naming it.
  [[nodiscard]] Executor& executor(PlanOutput output) const;
  /// Zeros in these blocks of every rank's KV cache.
  void clear_kv(std::span<const std::int32_t> blocks);

  [[nodiscard]] std::uint64_t bytes_weights() const noexcept;
  [[nodiscard]] std::uint64_t bytes_kv() const noexcept;
  [[nodiscard]] std::uint64_t bytes_workspace() const noexcept;

 private:
  struct Rank {
    std::unique_ptr<Device> device;
    std::unique_ptr<comm::Communicator> tensor;  // none with one rank
    std::unique_ptr<ResidentWeights> weights;
    std::unique_ptr<KvMemory> kv;
    Allocation workspace;  // of every executor: one runs at a time
    std::map<PlanOutput, std::unique_ptr<Executor>> executors;
  };

  std::vector<Rank> ranks_;
  std::unique_ptr<ThreadTeam> threads_;  // one a rank; none with one rank
  std::map<PlanOutput, std::unique_ptr<Executor>> joined_;  // none with one rank
};

}  // namespace lamella
