// From an op of a plan to a kernel call: which kernel, with which pointers. Pointers are fixed once; sizes follow each
// step.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "cpu/collectives.h"
#include "cpu/kernels/contracts.h"
#include "plan/plan.h"
#include "plan/symbol.h"
#include "runtime/device.h"

namespace lamella::cpu {

/// A kernel with its arguments.
template <typename Arguments>
struct KernelCall {
  void (*kernel)(const Arguments&, const Worker&);
  Arguments arguments;
};

using AnyCall =
    std::variant<KernelCall<NormArgs>, KernelCall<EmbedArgs>, KernelCall<LinearArgs>, KernelCall<AddBiasArgs>,
                 KernelCall<RopeTableArgs>, KernelCall<RopeArgs>, KernelCall<KvWriteArgs>, KernelCall<HeadsLayoutArgs>,
                 KernelCall<AttentionArgs>, KernelCall<ActivateArgs>, KernelCall<ResidualArgs>,
                 KernelCall<GatherRowsArgs>, KernelCall<MeanPoolArgs>, KernelCall<BestTokenArgs>,
                 KernelCall<NormQkvArgs>, KernelCall<NormMlpUpArgs>, KernelCall<OutputResidualArgs>,
                 KernelCall<BiasResidualArgs>, KernelCall<GreedyHeadArgs>, KernelCall<RouteArgs>,
                 KernelCall<DispatchArgs>, KernelCall<ExpertLinearArgs>, KernelCall<CombineArgs>,
                 KernelCall<NormRouteArgs>, KernelCall<ExpertUpArgs>, KernelCall<AllReduceArgs>,
                 KernelCall<AllGatherArgs>, KernelCall<BestOfRanksArgs>, KernelCall<ReceiveArgs>, KernelCall<SendArgs>>;

/// An op ready to run.
struct BoundOp {
  std::string kernel;  // "avx512/norm_qkv (int8)"
  Arithmetic arithmetic;
  /// Of the kernel set; nullptr: its linears have one way.
  LinearWay (*linear_way)(const WeightFormat&, std::int64_t tokens, bool sbi_gemm);
  Dim rows;  // how many rows (tokens, output rows or sequences) the kernel treats
  std::shared_ptr<const WeightAndBias[]> experts;  // that the call points to: of a mixture's linears
  AnyCall call;

  /// Takes over the sizes of the next step, for so many workers, and chooses what depends on them. Called once a step, by
  /// one thread.
  void resize(const StepShape& shape, int workers);
  /// The kernel and, for linears, how it goes with the sizes of the last step: "avx512/norm_qkv (int8): SBI-GeMM of int8 dots,
  /// 64 x 1".
  [[nodiscard]] std::string description() const;
  /// Phases of the call as it was resized last; all workers run one before any runs the next.
  [[nodiscard]] int phases() const;
  void run(const Worker& worker) const;
};

/// What ops are bound to.
struct Kernels {
  const KernelTable& table;
  ExecutorOptions options = {};
};

/// Where buffers and weights lie.
struct Places {
  std::function<std::byte*(BufferId)> buffer;
  std::function<PackedMatrix(const WeightId&)> matrix;
  std::function<const float*(const WeightId&)> vector;
  RankGroups groups = {};
};

/// What the kernel for `op` from `kernels` multiplies, most of all.
[[nodiscard]] Arithmetic arithmetic(const Plan& plan, const Op& op, const KernelTable& kernels);

/// Chooses the kernel for `op` from `kernels` and fixes its pointers. A kernel that the set lacks is an internal error:
/// passes only run where their ops have kernels.
[[nodiscard]] BoundOp bind(const Plan& plan, const Op& op, const Kernels& kernels, const Places& places);

}  // namespace lamella::cpu
