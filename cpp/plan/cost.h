// What an op moves and computes: the figures that `explain` prints and that benches divide by.
#pragma once

#include "plan/plan.h"

namespace lamella {

/// Bytes are those that must move between memory and the processor if every operand is touched once: weights,
/// activations and the KV cache. FLOPs count a multiply and an add as two. Which experts of a mixture a step touches is up to
/// its tokens: their weights count as often as tokens that are routed evenly and each by itself would touch them, E * (1 -
/// (1 - k / E)^T) of E experts.
struct Cost {
  std::int64_t bytes_read = 0;
  /// Of bytes_read, weights and the KV cache: what a model larger than the processor's caches reads from memory.
  std::int64_t bytes_streamed = 0;
  std::int64_t bytes_written = 0;
  std::int64_t flops = 0;

  Cost& operator+=(const Cost& other) noexcept {
    bytes_read += other.bytes_read;
    bytes_streamed += other.bytes_streamed;
    bytes_written += other.bytes_written;
    flops += other.flops;
    return *this;
  }
};

/// Cost of `op` for a step of that shape, KV lengths included. Errors: invalid_argument where a figure exceeds 2^63.
[[nodiscard]] Cost cost(const Plan& plan, const Op& op, const StepShape& shape);

/// Bytes of the resident weight as it is packed, scales and the last tile's padding included.
[[nodiscard]] std::int64_t weight_bytes(const WeightDeclaration& weight);
/// Bytes of one row of it: what a gather reads.
[[nodiscard]] std::int64_t row_bytes(const WeightDeclaration& weight);

/// Bytes of all weights that a step reads: every matrix and vector that ops name, an embedding table counted by its
/// rows used.
[[nodiscard]] std::int64_t weight_bytes_per_step(const Plan& plan, const StepShape& shape);

/// The element type of the plan's activations and KV state.
[[nodiscard]] DataType dtype_of(const Plan& plan);

}  // namespace lamella
