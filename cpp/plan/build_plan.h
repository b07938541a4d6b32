// From a model to its forward pass: the plain plan, unfused, unsliced and resident, that everything else is compared
// with.
#pragma once

#include <optional>
#include <vector>

#include "plan/plan.h"

namespace lamella {

/// What a plan returns. logits: [R, vocab] float32. greedy: [R, 2] float32, of each row of logits the best and, in the
/// bits of a float, its token (OpKind::best_token); the logits are not kept. hidden: [R, H] float32, the final rows.
/// mean: [S, H] float32, each sequence's mean of them. pooler: [R, H] float32, BERT's dense + tanh over row_indices
/// (the first tokens).
enum class PlanOutput : std::uint8_t { logits, greedy, hidden, mean, pooler };
[[nodiscard]] std::string_view to_string(PlanOutput output) noexcept;

struct PlanOptions {
  DataType dtype = DataType::f32;  // of activations
  std::optional<DataType> kv_dtype = {};  // of K and V in the cache; none: as dtype
  std::vector<WeightFormat> weight_formats = {};  // parallel to declare_weights(spec); empty: every matrix as dtype
  PlanOutput output = PlanOutput::logits;
  std::int64_t kv_pool_blocks = 0;  // blocks of 16 tokens in each KV state buffer
  StepShape bounds;
};

/// Errors: unsupported_model where the model has no such output (logits of an encoder, pooler without one).
void require_output(const ModelSpec& spec, PlanOutput output);

/// The forward pass of `spec`, op by op, in the order of the paper's figure 1(c). Errors: as require_output.
[[nodiscard]] Plan build_plan(const ModelSpec& spec, const PlanOptions& options);

}  // namespace lamella
