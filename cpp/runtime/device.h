// What the engine needs of a device, whichever it is: executors, threads and loops for the host, and its measured roof.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/thread_team.h"
#include "comm/communicator.h"
#include "memory/kv_pool.h"
#include "memory/resident_weights.h"
#include "runtime/executor.h"
#include "runtime/logit_kernels.h"

namespace lamella {

/// The roofs that bound every op: memory reads in bytes/s and multiply-adds of each arithmetic in operations/s,
/// measured on this machine; 0 where one was not measured.
struct Roofline {
  double bytes_per_s = 0.0;
  double f32_flops_per_s = 0.0, bf16_flops_per_s = 0.0, int8_ops_per_s = 0.0;

  [[nodiscard]] constexpr double peak(Arithmetic arithmetic) const noexcept {
    switch (arithmetic) {
      case Arithmetic::f32: return f32_flops_per_s;
      case Arithmetic::bf16: return bf16_flops_per_s;
      case Arithmetic::int8: return int8_ops_per_s;
    }
    return 0.0;
  }
};

/// A rank's ends of the groups that its plan meets in; null where the plan does not.
struct RankGroups {
  comm::Communicator* tensor = nullptr;  // of the ranks that share every layer
  comm::Communicator* pipeline = nullptr;  // of the stages, in order

  /// One that tells all ranks of a failure: any does.
  [[nodiscard]] comm::Communicator* any() const noexcept { return tensor != nullptr ? tensor : pipeline; }
};

/// What an executor works with and does not own.
struct Borrowed {
  const ResidentWeights& weights;
  KvMemory& kv;
  std::span<std::byte> workspace;
  RankGroups groups = {};
};

/// What a device may leave out, to show what it is worth. No bit depends on it.
struct ExecutorOptions {
  /// Linears of few tokens walk the weights once (the paper's III-C); false: they go as those of many do.
  bool sbi_gemm = true;
};

class Device {
 public:
  virtual ~Device() = default;
  /// An executor for the plan; what it borrows must outlive it. The workspace, at least workspace_bytes(plan) long,
  /// may serve other executors in turn: nothing in it lasts from one run to the next but the output.
  [[nodiscard]] virtual std::unique_ptr<Executor> executor(Plan plan, const Borrowed& memory,
                                                           const ExecutorOptions& options) = 0;
  /// Whether the device has kernels for Deep-Fusion's regions.
  [[nodiscard]] virtual bool has_fused_kernels() const noexcept = 0;
  /// Bytes of inputs, activations and scratch that executor(plan) needs.
  [[nodiscard]] virtual std::size_t workspace_bytes(const Plan& plan) const = 0;
  /// Bytes of memory free for this process, cgroup limits included.
  [[nodiscard]] virtual std::uint64_t available_memory() const = 0;
  /// Threads that load weights and run plans; one user at a time.
  [[nodiscard]] virtual ThreadTeam& team() noexcept = 0;
  /// What tokens are chosen with, on the host's processor.
  [[nodiscard]] virtual const LogitKernels& logit_kernels() const noexcept = 0;
  /// Measures all roofs; takes about a second, and for its while memory: at most a quarter of what is available and all
  /// that a memory budget leaves. Where that is too little to measure memory with, bytes_per_s is 0.
  [[nodiscard]] virtual Roofline measure_roofline(std::optional<std::uint64_t> left_of_budget) = 0;
  /// "cpu (avx512, 2 threads)".
  [[nodiscard]] virtual std::string name() const = 0;
};

}  // namespace lamella
