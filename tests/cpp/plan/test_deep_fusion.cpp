#include <gtest/gtest.h>

#include <algorithm>

#include "plan/passes/deep_fusion.h"
#include "plan/verify.h"
#include "plans.h"

namespace lamella::testing {
namespace {

TEST(DeepFusion, MakesFourRegionsOfALayer) {
  EXPECT_EQ(
      to_table(deep_fusion(plan_of(llama_like(1)))),
      "-             embed            token_ids[T], positions[T], token_types[T] -> embedded[T, 36]  | "
      "token_embedding\n"
      "-             rope_table       positions[T], rope_lengths[T] -> angles[T, 6]\n"
      "0   qkv       norm_qkv         embedded[T, 36], positions[T], sequences[S, 2], block_tables[S, B], angles[T, 6] "
      "-> "
      "0.rotated[T, 36], kv.0[12, 2, 2, 16, 16]  | attention_norm, query, key, value\n"
      "0   attention layout_attention 0.rotated[T, 36], positions[T], sequences[S, 2], block_tables[S, B], kv.0[12, 2, "
      "2, 16, 16] -> "
      "0.context[T, 36]\n"
      "0   output    output_residual  0.context[T, 36], embedded[T, 36] -> 0.residual[T, 36]  | attention_output\n"
      "0   mlp_up    norm_mlp_up      0.residual[T, 36] -> 0.activated[T, 50]  | mlp_norm, mlp_up, mlp_gate\n"
      "0   output    output_residual  0.activated[T, 50], 0.residual[T, 36] -> 0.residual[T, 36]  | mlp_down\n"
      "-             gather_rows      0.residual[T, 36], row_indices[R] -> rows[R, 36]\n"
      "-             norm             rows[R, 36] -> normed[R, 36]  | final_norm\n"
      "-             linear           normed[R, 36] -> logits[R, 101]  | token_embedding\n");
}

TEST(DeepFusion, MakesThreeOpsAroundTheExpertsOfAMixture) {
  const std::string table = to_table(deep_fusion(plan_of(qwen_moe_like(1))));
  const std::string mixture =
      "0   route     norm_route       0.residual[T, 36] -> 0.dispatched[3*T, 36], 0.offsets[8], 0.places[T, 3], "
      "0.expert_weights[T, 3], 0.shared_gate[T, 1]  | mlp_norm, router, shared_router\n"
      "0   experts   expert_up        0.dispatched[3*T, 36], 0.offsets[8] -> 0.activated[3*T, 34]  | mlp_up x7, "
      "mlp_gate "
      "x7\n"
      "0             expert_linear    0.activated[3*T, 34], 0.offsets[8] -> 0.down[3*T, 36]  | mlp_down x7\n"
      "0   mlp_up    norm_mlp_up      0.residual[T, 36] -> 0.activated[T, 50]  | mlp_norm, shared_up, shared_gate\n"
      "0             linear           0.activated[T, 50] -> 0.shared[T, 36]  | shared_down\n"
      "0   combine   combine_residual 0.down[3*T, 36], 0.places[T, 3], 0.expert_weights[T, 3], 0.shared[T, 36], "
      "0.shared_gate[T, 1], 0.residual[T, 36] -> 0.residual[T, 36]\n";
  EXPECT_NE(table.find(mixture), std::string::npos) << table;
}

TEST(DeepFusion, FusesEveryRegionOfEveryFamily) {
  for (const ModelSpec& spec : {llama_like(3), gpt2_like(3), neox_like(3)}) {
    const Plan fused = deep_fusion(plan_of(spec));
    for (const auto& [kind, count] : {std::pair{OpKind::norm_qkv, 3}, std::pair{OpKind::layout_attention, 3},
                                      std::pair{OpKind::norm_mlp_up, 3}, std::pair{OpKind::output_residual, 6}})
      EXPECT_EQ(std::ranges::count(fused.ops, kind, &Op::kind), count) << spec.family << " " << to_string(kind);
    EXPECT_EQ(std::ranges::count(fused.ops, OpKind::residual, &Op::kind), 0) << spec.family;
  }
  // BERT's norms follow the residual and stay ops of their own: two a layer, and the embedding's.
  const Plan bert = deep_fusion(plan_of(bert_like(3), PlanOutput::hidden));
  EXPECT_EQ(std::ranges::count(bert.ops, OpKind::norm, &Op::kind), 7);
  EXPECT_EQ(std::ranges::count(bert.ops, OpKind::norm_qkv, &Op::kind), 3);
}

TEST(DeepFusion, MakesOneOpOfAHeadThatLooksForTheBestToken) {
  ModelSpec spec = neox_like(1);
  spec.head.bias = true;
  const std::string table = to_table(deep_fusion(plan_of(spec, PlanOutput::greedy)));
  EXPECT_TRUE(table.ends_with("-   head      greedy_head      normed[R, 30] -> greedy[R, 2]  | head, head_bias\n"))
      << table;
}

TEST(DeepFusion, KeepsTheOutputAndItsType) {
  const Plan plain = plan_of(gpt2_like()), fused = deep_fusion(plain);
  ASSERT_NE(fused.find("logits"), nullptr);
  EXPECT_EQ(fused.find("logits")->shape, plain.find("logits")->shape);
  EXPECT_EQ(fused.find("logits")->type, DataType::f32);
}

TEST(DeepFusion, IsIdempotent) {
  const Plan once = deep_fusion(plan_of(neox_like()));
  EXPECT_EQ(to_table(deep_fusion(once)), to_table(once));
}

TEST(DeepFusion, LeavesARegionAloneThatHoldsAnotherOp) {
  // A bias moved behind an op that the region cannot take in stands for what a collective will do.
  Plan plan = plan_of(gpt2_like(1));
  const auto attention = std::ranges::find(plan.ops, OpKind::attention, &Op::kind);
  Op foreign{.kind = OpKind::activate,
             .layer = 0,
             .region = Region::attention,
             .inputs = {attention->outputs[0]},
             .outputs = {},
             .weights = {},
             .attributes = {.activation = Activation::relu}};
  Buffer copy = plan.buffer(attention->outputs[0]);
  copy.name = "foreign";
  plan.buffers.push_back(copy);
  foreign.outputs = {BufferId{static_cast<std::uint32_t>(plan.buffers.size() - 1)}};
  (attention + 1)->inputs = foreign.outputs;
  plan.ops.insert(attention + 1, foreign);
  verify(plan);
  const Plan fused = deep_fusion(plan);
  EXPECT_EQ(std::ranges::count(fused.ops, OpKind::layout_attention, &Op::kind), 0);
  EXPECT_EQ(std::ranges::count(fused.ops, OpKind::attention, &Op::kind), 1);
  EXPECT_EQ(std::ranges::count(fused.ops, OpKind::norm_qkv, &Op::kind), 1);
}

}  // namespace
}  // namespace lamella::testing
