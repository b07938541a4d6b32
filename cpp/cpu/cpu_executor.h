// Runs a plan on this machine's cores.
#pragma once

#include <memory>
#include <vector>

#include "base/thread_team.h"
#include "cpu/bind.h"
#include "memory/buffer_plan.h"
#include "runtime/device.h"

namespace lamella::cpu {

/// Who of a team takes part in a step: all, or no more than the cores that the calling thread may use at that moment.
/// More would wait for each other at every barrier. Results are the same.
enum class Members : std::uint8_t { all, as_cores };

/// Walks the plan with a team of threads, a barrier after each phase of an op. Owns the plan alone: memory and team are
/// borrowed, outlive it and may serve other executors in turn. The workspace holds the plan's buffers, then the memory
/// that threads share within an op, then each thread's scratch.
class CpuExecutor final : public Executor {
 public:
  /// The kernels' table is of the plan's dtype and only read here.
  CpuExecutor(Plan plan, const Borrowed& memory, ThreadTeam& team, const Kernels& kernels,
              Members members = Members::all);

  /// Bytes of workspace that such an executor needs with so many threads.
  [[nodiscard]] static std::size_t workspace_bytes(const Plan& plan, int threads);

  [[nodiscard]] const Plan& plan() const noexcept override { return plan_; }
  std::span<const float> run(const StepInput& step) override;
  std::vector<double> run_timed(const StepInput& step) override;
  [[nodiscard]] std::string kernel_name(std::size_t op) const override { return ops_.at(op).description(); }
  [[nodiscard]] Arithmetic arithmetic(std::size_t op) const override { return ops_.at(op).arithmetic; }

 private:
  /// How many threads take part in a step that begins now.
  [[nodiscard]] int workers() const;
  void prepare(const StepInput& step, int workers);
  void execute(int workers, std::vector<double>* seconds);
  [[nodiscard]] std::span<const float> output(const StepShape& shape) const;

  Plan plan_;
  BufferPlan buffers_;
  ThreadTeam& team_;
  Members members_;
  std::byte* activations_;
  std::byte* shared_;
  std::size_t shared_size_;
  std::size_t scratch_each_;
  std::byte* scratch_;
  std::unique_ptr<WorkShare[]> shares_;  // of each worker
  std::vector<BoundOp> ops_;
  RankGroups groups_;
};

/// What scratch, and the memory shared by so many workers, must hold for any op of the plan.
[[nodiscard]] ScratchBounds scratch_bounds(const Plan& plan, int workers);

}  // namespace lamella::cpu
