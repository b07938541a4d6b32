// Runs a plan on this machine's cores.
#pragma once

#include <memory>
#include <vector>

#include "base/thread_team.h"
#include "cpu/bind.h"
#include "memory/buffer_plan.h"
#include "runtime/device.h"

namespace lamella::cpu {

/// Walks the plan with a team of threads, a barrier after each op. Owns the plan alone: memory and team are borrowed,
/// outlive it and may serve other executors in turn. The workspace holds the plan's buffers, then each thread's scratch.
class CpuExecutor final : public Executor {
 public:
  /// `kernels` is of the plan's dtype and only read here.
  CpuExecutor(Plan plan, const Borrowed& memory, ThreadTeam& team, const KernelTable& kernels);

  /// Bytes of workspace that such an executor needs with so many threads.
  [[nodiscard]] static std::size_t workspace_bytes(const Plan& plan, int threads);

  [[nodiscard]] const Plan& plan() const noexcept override { return plan_; }
  std::span<const float> run(const StepInput& step) override;
  std::vector<double> run_timed(const StepInput& step) override;
  [[nodiscard]] std::string kernel_name(std::size_t op) const override { return ops_.at(op).kernel; }

 private:
  void prepare(const StepInput& step);
  void execute(std::vector<double>* seconds);
  [[nodiscard]] std::span<const float> output(const StepShape& shape) const;

  Plan plan_;
  BufferPlan buffers_;
  ThreadTeam& team_;
  std::byte* activations_;
  std::size_t scratch_each_;
  std::byte* scratch_;
  std::vector<BoundOp> ops_;
};

/// Scratch that one worker needs for any op of the plan.
[[nodiscard]] ScratchBounds scratch_bounds(const Plan& plan);

}  // namespace lamella::cpu
