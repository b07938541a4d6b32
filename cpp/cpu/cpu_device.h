// This machine's cores as a device.
#pragma once

#include <optional>

#include "cpu/cpu_executor.h"
#include "cpu/kernels/logit_kernels.h"
#include "runtime/device.h"

namespace lamella::cpu {

struct CpuOptions {
  int threads = 0;                    // 0: every core that affinity and cgroup limits leave to the process
  std::optional<KernelSet> kernels;   // none: default_kernel_set()
};

class CpuDevice final : public Device {
 public:
  /// Errors: invalid_argument for a thread count below 0 or above 1024 and for a kernel set that the machine does not
  /// run.
  explicit CpuDevice(const CpuOptions& options);

  [[nodiscard]] std::unique_ptr<Executor> executor(Plan plan, const Borrowed& memory,
                                                   const ExecutorOptions& options) override;
  [[nodiscard]] bool has_fused_kernels() const noexcept override { return kernels_ != KernelSet::reference; }
  [[nodiscard]] std::size_t workspace_bytes(const Plan& plan) const override;
  [[nodiscard]] std::uint64_t available_memory() const override;
  [[nodiscard]] ThreadTeam& team() noexcept override { return team_; }
  [[nodiscard]] const LogitKernels& logit_kernels() const noexcept override { return cpu::logit_kernels(kernels_); }
  [[nodiscard]] Roofline measure_roofline(std::optional<std::uint64_t> left_of_budget) override;
  [[nodiscard]] std::string name() const override;

 private:
  KernelSet kernels_;
  ThreadTeam team_;
};

}  // namespace lamella::cpu
