// Pipeline stages (the paper's IV-B): one stage's run of the layers, and what goes from stage to stage.
#pragma once

#include <vector>

#include "model/shard.h"
#include "plan/plan.h"

namespace lamella {

/// The layers of each stage, in order, so that the stage with the largest share has as small a one as can be. A stage's share is
/// the mean of two: of the bytes that a step of one token reads, by which generation goes, and of the FLOPs of a step of
/// 128 tokens, by which prompts go; embedding and head count for the stages at the ends. A function of the plan alone, which is
/// the whole model's. Errors: internal for fewer layers than stages (require_stages).
[[nodiscard]] std::vector<ShardRange> balance_stages(const Plan& plan, int stages);

/// The plan of one stage: its layers' ops, what stands before the layers in the first and behind them in the last. It begins by
/// receiving what the stage before has left for it, and ends by sending what later stages need; tables that come from a
/// step's inputs alone are computed by every stage that needs them. Only the last one has an output, only weights that a
/// stage's ops name are on it, and those that no op names on the last.
///
/// Requires: a verified plan without fused ops, sliced or not; `layers` of all stages cover those of the model in order.
/// Guarantees: the same numbers, bit for bit. One stage's plan is the plan as it was.
[[nodiscard]] Plan pipeline_stages(const Plan& plan, const std::vector<ShardRange>& layers, int stage);

}  // namespace lamella
