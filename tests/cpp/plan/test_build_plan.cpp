#include <gtest/gtest.h>

#include <algorithm>

#include "lamella/error.h"
#include "plan/verify.h"
#include "plans.h"

namespace lamella::testing {
namespace {

// The plan of one layer, as people read it. A change here is a change of every forward pass.
TEST(BuildPlan, LlamaLayerReadsLikeTheFigure) {
  EXPECT_EQ(to_table(plan_of(llama_like(1))),
            "-             embed            token_ids[T], positions[T], token_types[T] -> embedded[T, 36]  | "
            "token_embedding\n"
            "-             rope_table       positions[T], rope_lengths[T] -> angles[T, 6]\n"
            "0   qkv       norm             embedded[T, 36] -> 0.normed[T, 36]  | attention_norm\n"
            "0   qkv       linear           0.normed[T, 36] -> 0.q[T, 36]  | query\n"
            "0   qkv       linear           0.normed[T, 36] -> 0.k[T, 12]  | key\n"
            "0   qkv       linear           0.normed[T, 36] -> 0.v[T, 12]  | value\n"
            "0   qkv       rope             0.q[T, 36], angles[T, 6] -> 0.rotated[T, 36]\n"
            "0   qkv       rope             0.k[T, 12], angles[T, 6] -> 0.rotated[T, 12]\n"
            "0   qkv       kv_write         0.rotated[T, 12], 0.v[T, 12], positions[T], sequences[S, 2], "
            "block_tables[S, B] -> "
            "kv.0[12, 2, 2, 16, 16]\n"
            "0   attention split_heads      0.rotated[T, 36] -> 0.heads[6, T, 6]\n"
            "0   attention attention        0.heads[6, T, 6], positions[T], sequences[S, 2], block_tables[S, B], "
            "kv.0[12, 2, 2, 16, 16] -> "
            "0.attended[6, T, 6]\n"
            "0   attention merge_heads      0.attended[6, T, 6] -> 0.context[T, 36]\n"
            "0   output    linear           0.context[T, 36] -> 0.projected[T, 36]  | attention_output\n"
            "0   output    residual         0.projected[T, 36], embedded[T, 36] -> 0.residual[T, 36]\n"
            "0   mlp_up    norm             0.residual[T, 36] -> 0.normed[T, 36]  | mlp_norm\n"
            "0   mlp_up    linear           0.normed[T, 36] -> 0.up[T, 50]  | mlp_up\n"
            "0   mlp_up    linear           0.normed[T, 36] -> 0.gate[T, 50]  | mlp_gate\n"
            "0   mlp_up    activate_gated   0.gate[T, 50], 0.up[T, 50] -> 0.activated[T, 50]\n"
            "0   output    linear           0.activated[T, 50] -> 0.projected[T, 36]  | mlp_down\n"
            "0   output    residual         0.projected[T, 36], 0.residual[T, 36] -> 0.residual[T, 36]\n"
            "-             gather_rows      0.residual[T, 36], row_indices[R] -> rows[R, 36]\n"
            "-             norm             rows[R, 36] -> normed[R, 36]  | final_norm\n"
            "-             linear           normed[R, 36] -> logits[R, 101]  | token_embedding\n");
}

TEST(BuildPlan, EveryFamilyAndOutputVerifies) {
  for (const ModelSpec& spec : {llama_like(), gpt2_like(), neox_like()}) {
    EXPECT_NO_THROW(verify(plan_of(spec, PlanOutput::logits))) << spec.family;
    EXPECT_NO_THROW(verify(plan_of(spec, PlanOutput::hidden))) << spec.family;
  }
  for (const PlanOutput output : {PlanOutput::hidden, PlanOutput::mean, PlanOutput::pooler})
    EXPECT_NO_THROW(verify(plan_of(bert_like(), output))) << to_string(output);
}

TEST(BuildPlan, ParallelLayersReadTheirInputTwice) {
  const Plan plan = plan_of(neox_like(1));
  std::vector<BufferId> norm_inputs;
  for (const Op& op : plan.ops)
    if (op.kind == OpKind::norm && op.layer == 0) norm_inputs.push_back(op.inputs.front());
  ASSERT_EQ(norm_inputs.size(), 2U);
  EXPECT_EQ(norm_inputs[0], norm_inputs[1]);
}

TEST(BuildPlan, ASharedNormOfAParallelLayerUsesTheFirstNormsWeights) {
  ModelSpec spec = neox_like(1);
  spec.layers[0].mlp_norm.kind = NormKind::none;
  const Plan plan = plan_of(spec);
  verify(plan);
  int uses = 0;
  for (const Op& op : plan.ops)
    uses += op.kind == OpKind::norm && plan.weight(op, Slot::attention_norm) != nullptr ? 1 : 0;
  EXPECT_EQ(uses, 2);
}

TEST(BuildPlan, BidirectionalLayersShareOneKvState) {
  const Plan plan = plan_of(bert_like(3), PlanOutput::hidden);
  EXPECT_EQ(std::ranges::count(plan.buffers, BufferKind::state, &Buffer::kind), 1);
}

TEST(BuildPlan, RefusesOutputsThatTheModelHasNot) {
  EXPECT_THROW(static_cast<void>(plan_of(bert_like(), PlanOutput::logits)), Error);
  EXPECT_THROW(static_cast<void>(plan_of(llama_like(), PlanOutput::pooler)), Error);
}

}  // namespace
}  // namespace lamella::testing
