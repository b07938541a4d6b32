// Runs a plan on this machine's cores.
#pragma once

#include <memory>
#include <vector>

#include "base/thread_team.h"
#include "cpu/bind.h"
#include "memory/buffer_plan.h"
#include "memory/kv_pool.h"
#include "memory/resident_weights.h"
#include "runtime/executor.h"

namespace lamella::cpu {

/// Walks the plan with a team of threads, a barrier after each op. Owns the plan, its activations (one allocation) and
/// scratch; borrows weights, KV memory and team, which outlive it and may serve other executors in turn.
class CpuExecutor final : public Executor {
 public:
  CpuExecutor(Plan plan, const ResidentWeights& weights, KvMemory& kv, ThreadTeam& team, KernelSet kernels);

  [[nodiscard]] const Plan& plan() const noexcept override { return plan_; }
  std::span<const float> run(const StepInput& step) override;
  std::vector<double> run_timed(const StepInput& step) override;
  [[nodiscard]] std::string kernel_name(std::size_t op) const override { return ops_.at(op).kernel; }
  [[nodiscard]] std::size_t activation_bytes() const noexcept override { return activations_.size() + scratch_.size(); }
  [[nodiscard]] const BufferPlan& buffers() const noexcept { return buffers_; }

 private:
  void prepare(const StepInput& step);
  void execute(std::vector<double>* seconds);
  [[nodiscard]] std::span<const float> output(const StepShape& shape) const;

  Plan plan_;
  BufferPlan buffers_;
  Allocation activations_;
  ThreadTeam& team_;
  std::size_t scratch_each_;
  Allocation scratch_;
  std::vector<BoundOp> ops_;
};

/// Scratch that one worker needs for any op of the plan.
[[nodiscard]] ScratchBounds scratch_bounds(const Plan& plan);

}  // namespace lamella::cpu
