// This machine's cores as a device.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "comm/topology.h"
#include "cpu/cpu_executor.h"
#include "cpu/kernels/logit_kernels.h"
#include "model/model_spec.h"
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

/// A device for each rank of those sizes, in order of the topology's numbers. `options.threads` are those of all ranks together,
/// shared out evenly, with one at least for each. Errors: those of CpuDevice and comm::validate, and invalid_argument for
/// ranks that the model cannot be shared by: before a thread is made.
[[nodiscard]] std::vector<std::unique_ptr<Device>> cpu_devices(const ModelSpec& spec, const comm::ParallelSizes& sizes,
                                                               const CpuOptions& options);

}  // namespace lamella::cpu
