// From an op of a plan to a kernel call: which kernel, with which pointers. Pointers are fixed once; sizes follow each
// step.
#pragma once

#include <functional>
#include <string>
#include <variant>

#include "cpu/kernels/contracts.h"
#include "plan/plan.h"
#include "plan/symbol.h"

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
                 KernelCall<GatherRowsArgs>, KernelCall<MeanPoolArgs>, KernelCall<NormQkvArgs>,
                 KernelCall<NormMlpUpArgs>, KernelCall<OutputResidualArgs>>;

/// An op ready to run.
struct BoundOp {
  std::string kernel;  // "avx512/norm_qkv (int8)"
  Dim rows;  // how many rows (tokens, output rows or sequences) the kernel treats
  AnyCall call;

  /// Takes over the sizes of the next step. Called once a step, by one thread.
  void resize(const StepShape& shape);
  void run(const Worker& worker) const;
};

/// Where buffers and weights lie.
struct Places {
  std::function<std::byte*(BufferId)> buffer;
  std::function<PackedMatrix(const WeightId&)> matrix;
  std::function<const float*(const WeightId&)> vector;
};

/// Chooses the kernel for `op` from `kernels` and fixes its pointers. A kernel that the set lacks is an internal error:
/// passes only run where their ops have kernels.
[[nodiscard]] BoundOp bind(const Plan& plan, const Op& op, const KernelTable& kernels, const Places& places);

}  // namespace lamella::cpu
