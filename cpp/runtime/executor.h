// Who runs a plan: the border between the engine's loop and a device.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/arithmetic.h"
#include "plan/plan.h"
#include "runtime/step_input.h"

namespace lamella {

/// Runs one plan, step after step, on one device. Used by one thread at a time.
class Executor {
 public:
  virtual ~Executor() = default;

  [[nodiscard]] virtual const Plan& plan() const noexcept = 0;
  /// Runs the step and returns the plan's output, [rows or sequences][width] float32, valid until the next run; nothing where
  /// the plan has none, as those of a pipeline's stages but the last. The step must lie within the plan's bounds. Errors leave the executor usable; the KV blocks named in the step then
  /// hold no defined values.
  virtual std::span<const float> run(const StepInput& step) = 0;
  /// As run, and measures each op: seconds, in plan order.
  virtual std::vector<double> run_timed(const StepInput& step) = 0;
  /// The kernel that runs op number `op`, for people, with what the last step's sizes chose: "avx512/norm_qkv (int8):
  /// SBI-GeMM of int8 dots, 64 x 1".
  [[nodiscard]] virtual std::string kernel_name(std::size_t op) const = 0;
  /// What that kernel multiplies.
  [[nodiscard]] virtual Arithmetic arithmetic(std::size_t op) const = 0;
};

}  // namespace lamella
