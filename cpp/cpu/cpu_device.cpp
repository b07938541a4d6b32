#include "cpu/cpu_device.h"

#include <algorithm>

#include "base/check.h"
#include "cpu/machine.h"
#include "model/shard.h"
#include "plan/cost.h"

namespace lamella::cpu {
namespace {

int team_size(int threads) {
  if (threads < 0 || threads > most_threads)
    throw Error(ErrorCode::invalid_argument,
                concat("threads is ", threads, "; expected 1 to ", most_threads, ", or none for all usable cores"));
  return threads == 0 ? usable_cores() : threads;
}

}  // namespace

CpuDevice::CpuDevice(const CpuOptions& options)
    : kernels_(options.kernels ? *options.kernels : default_kernel_set()), team_(team_size(options.threads)) {}

std::unique_ptr<Executor> CpuDevice::executor(Plan plan, const Borrowed& memory, const ExecutorOptions& options) {
  const Kernels kernels{kernel_table(kernels_, dtype_of(plan)), options};
  return std::make_unique<CpuExecutor>(std::move(plan), memory, team_, kernels, Members::as_cores);
}

std::size_t CpuDevice::workspace_bytes(const Plan& plan) const {
  return CpuExecutor::workspace_bytes(plan, team_.size());
}

std::uint64_t CpuDevice::available_memory() const { return cpu::available_memory(); }

Roofline CpuDevice::measure_roofline(std::optional<std::uint64_t> left_of_budget) {
  const std::size_t buffer = bandwidth_buffer(available_memory(), left_of_budget);
  const auto peak = [&](Arithmetic arithmetic) { return measure_peak(kernels_, arithmetic, team_.size()); };
  return {.bytes_per_s = buffer == 0 ? 0.0 : measure_read_bandwidth(team_.size(), buffer),
          .f32_flops_per_s = peak(Arithmetic::f32),
          .bf16_flops_per_s = peak(Arithmetic::bf16),
          .int8_ops_per_s = peak(Arithmetic::int8)};
}

std::string CpuDevice::name() const {
  return concat("cpu (", to_string(kernels_), ", ", team_.size(), team_.size() == 1 ? " thread)" : " threads)");
}

std::vector<std::unique_ptr<Device>> cpu_devices(const ModelSpec& spec, const comm::ParallelSizes& sizes,
                                                 const CpuOptions& options) {
  comm::validate(sizes);
  require_shards(spec, sizes.tensor);
  require_stages(spec, sizes.pipeline);
  const int ranks = sizes.ranks(), threads = team_size(options.threads);
  std::vector<std::unique_ptr<Device>> devices;
  for (int rank = 0; rank < ranks; ++rank) {
    CpuOptions own = options;
    own.threads = std::max(1, static_cast<int>(even_share(threads, rank, ranks).size()));
    devices.push_back(std::make_unique<CpuDevice>(own));
  }
  return devices;
}

}  // namespace lamella::cpu
