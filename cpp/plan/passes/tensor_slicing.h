// Tensor slicing (the paper's IV-A): one rank's part of every layer, and the collectives that join the parts.
#pragma once

#include "plan/plan.h"

namespace lamella {

/// One of the ranks that share every layer.
struct TensorRank {
  int rank = 0, ranks = 1;
};

/// The plan of one rank. Of the query, key and value linears, of MLP-up and gate and of the vocabulary it has its share of the
/// outputs (model/shard.h), and attention runs over its heads. The linears behind them join the parts:
///   - by their sum, where a cut of the inputs leaves the format's groups whole and inputs are not quantised: each rank
///     multiplies its inputs, all_reduce adds the fp32 results, and bias and residual follow once. A layer whose attention
///     and MLP run in parallel adds both first: one all_reduce;
///   - otherwise by their columns: all_gather brings the inputs together, each rank computes its share of the outputs, and another
///     one brings those together. Inputs are then rounded as on one rank: with the largest magnitude of the whole row.
/// Every expert of a mixture is cut like a dense MLP, and so is the shared one; all ranks route all tokens. Where ranks hold
/// summands, one all_reduce behind the weighted sum brings together the experts and the shared one.
/// An embedding's rows come from the rank that has the token, the others add zeros. Greedy plans compare what each rank
/// finds best; others gather the logits.
///
/// Requires: a verified plan that no other pass has changed. Guarantees: the same outputs on all ranks, up to the order of
/// additions; the collectives of all ranks in the same order (verify_together). One rank's plan is the plan as it was.
/// Errors: internal where a layer has fewer heads or a narrower MLP than there are ranks (require_shards comes first).
[[nodiscard]] Plan tensor_slicing(const Plan& plan, const TensorRank& where);

}  // namespace lamella
