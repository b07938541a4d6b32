#include <gtest/gtest.h>

#include <algorithm>

#include "plan/passes/deep_fusion.h"
#include "plan/passes/tensor_slicing.h"
#include "plan/verify.h"
#include "plans.h"

namespace lamella::testing {
namespace {

Plan sliced(const Plan& plan, int rank, int ranks) { return tensor_slicing(plan, {.rank = rank, .ranks = ranks}); }

std::int64_t count(const Plan& plan, OpKind kind) { return std::ranges::count(plan.ops, kind, &Op::kind); }

TEST(TensorSlicing, CutsHeadsWidthsAndVocabulary) {  // five heads on two ranks: three and two
  EXPECT_EQ(to_table(deep_fusion(sliced(plan_of(gpt2_like(1)), 1, 2))),
            "-             embed            token_ids[T], positions[T], token_types[T] -> embedded.part[T, 30]  | "
            "token_embedding, position_embedding\n"
            "-             all_reduce       embedded.part[T, 30] -> embedded[T, 30]\n"
            "0   qkv       norm_qkv         embedded[T, 30], positions[T], sequences[S, 2], block_tables[S, B] -> "
            "0.q+b[T, 12], kv.0[12, 2, 2, 16, 16]  | attention_norm, attention_norm_bias, query, query_bias, key, "
            "key_bias, value, value_bias\n"
            "0   attention layout_attention 0.q+b[T, 12], positions[T], sequences[S, 2], block_tables[S, B], kv.0[12, "
            "2, 2, 16, 16] -> 0.context[T, 12]\n"
            "0   output    linear           0.context[T, 12] -> 0.projected.part[T, 30]  | attention_output\n"
            "0   output    all_reduce       0.projected.part[T, 30] -> 0.projected.part.sum[T, 30]\n"
            "0   output    bias_residual    0.projected.part.sum[T, 30], embedded[T, 30] -> 0.residual[T, 30]  | "
            "attention_output_bias\n"
            "0   mlp_up    norm_mlp_up      0.residual[T, 30] -> 0.activated[T, 6]  | mlp_norm, mlp_norm_bias, mlp_up, "
            "mlp_up_bias\n"
            "0   output    linear           0.activated[T, 6] -> 0.projected.part[T, 30]  | mlp_down\n"
            "0   output    all_reduce       0.projected.part[T, 30] -> 0.projected.part.sum[T, 30]\n"
            "0   output    bias_residual    0.projected.part.sum[T, 30], 0.residual[T, 30] -> 0.residual[T, 30]  | "
            "mlp_down_bias\n"
            "-             gather_rows      0.residual[T, 30], row_indices[R] -> rows[R, 30]\n"
            "-             norm             rows[R, 30] -> normed[R, 30]  | final_norm, final_norm_bias\n"
            "-             linear           normed[R, 30] -> logits.part[R, 3]  | token_embedding\n"
            "-             all_gather       logits.part[R, 3] -> logits[R, 67]\n");
}

TEST(TensorSlicing, WeightsAreCutLikeTheirOps) {
  const Plan plan = sliced(plan_of(gpt2_like(1)), 1, 2);
  const auto part = [&](Slot slot) {
    const auto found =
        std::ranges::find_if(plan.weights, [&](const WeightDeclaration& w) { return w.id.slot == slot; });
    EXPECT_NE(found, plan.weights.end());
    return *found;
  };
  using Ranges = std::vector<ShardRange>;
  EXPECT_EQ(part(Slot::query).part, (WeightPart{Ranges{{18, 30}}, {0, 30}, 30, 30}));
  EXPECT_EQ(part(Slot::query).rows, 12);
  EXPECT_EQ(part(Slot::key_bias).part, (WeightPart{Ranges{{18, 30}}, {0, 1}, 30, 1}));
  EXPECT_EQ(part(Slot::key_bias).columns, 12);
  EXPECT_EQ(part(Slot::attention_output).part, (WeightPart{Ranges{{0, 30}}, {18, 30}, 30, 30}));
  EXPECT_EQ(part(Slot::attention_output).columns, 12);
  EXPECT_FALSE(part(Slot::attention_output_bias).part);
  EXPECT_EQ(part(Slot::mlp_down).part, (WeightPart{Ranges{{0, 30}}, {64, 70}, 30, 70}));
  EXPECT_EQ(part(Slot::token_embedding).part, (WeightPart{Ranges{{64, 67}}, {0, 30}, 67, 30}));
  EXPECT_FALSE(part(Slot::position_embedding).part);
}

TEST(TensorSlicing, AKvHeadStandsWhereItsQueryHeadsAre) {  // six heads, two KV heads, four ranks: 2, 2, 1, 1
  const Plan plan = sliced(plan_of(llama_like(1)), 1, 4);  // heads 2 and 3: one of each group
  const auto attention = std::ranges::find(plan.ops, OpKind::attention, &Op::kind);
  EXPECT_EQ(attention->attributes.heads, 2);
  EXPECT_EQ(attention->attributes.kv_heads, 2);
  const auto key =
      std::ranges::find_if(plan.weights, [](const WeightDeclaration& w) { return w.id.slot == Slot::key; });
  EXPECT_EQ(key->part.outputs, (std::vector<ShardRange>{{0, 12}}));
}

TEST(TensorSlicing, AParallelLayerAddsUpOnce) {
  const ModelSpec spec = neox_like(3);
  for (const bool fused : {false, true}) {
    Plan plan = sliced(plan_of(spec), 0, 2);
    if (fused) plan = deep_fusion(plan);
    EXPECT_EQ(count(plan, OpKind::all_reduce), 1 + 3);  // the embedding's, and one a layer
  }
  EXPECT_EQ(count(sliced(plan_of(gpt2_like(3)), 0, 2), OpKind::all_reduce), 1 + 2 * 3);
}

TEST(TensorSlicing, AMixtureAddsUpOnceAndRoutesOnEveryRank) {
  const Plan plan = deep_fusion(sliced(plan_of(qwen_moe_like(1)), 1, 2));
  EXPECT_EQ(count(plan, OpKind::all_reduce), 1 + 2);  // the embedding's, attention's and the mixture's
  const auto summed = std::ranges::find(plan.ops, OpKind::combine, &Op::kind);
  ASSERT_NE(summed, plan.ops.end());
  EXPECT_EQ((summed + 1)->kind, OpKind::all_reduce);
  EXPECT_EQ(plan.buffer(summed->outputs[0]).type, DataType::f32);
  for (const WeightDeclaration& weight : plan.weights)
    if (weight.id.slot == Slot::mlp_down) {
      EXPECT_EQ(weight.part, (WeightPart{{{0, 36}}, {17, 34}, 36, 34})) << to_string(weight.id);
    }
}

TEST(TensorSlicing, ABiasOfAnExpertCountsOnce) {
  for (int rank = 0; rank < 3; ++rank) {
    const Plan plan = sliced(plan_of(gpt_moe_like(2)), rank, 3);
    for (const Op& op : plan.ops)
      if (op.kind == OpKind::expert_linear && plan.weight(op, Slot::mlp_down) != nullptr) {
        EXPECT_EQ(plan.weight(op, Slot::mlp_down_bias) != nullptr, rank == 0);
      }
  }
}

TEST(TensorSlicing, QuantisedInputsAreGathered) {
  for (const WeightFormat& format : {formats::int8, formats::int8_rotated, formats::int4_a8}) {
    PlanOptions options = plan_options();
    for (const WeightDeclaration& weight : declare_weights(gpt2_like(1)))
      options.weight_formats.push_back(is_vector(weight.id.slot)      ? formats::f32
                                       : is_embedding(weight.id.slot) ? formats::int8_weight_only
                                                                      : format);
    const Plan plan = deep_fusion(sliced(build_plan(gpt2_like(1), options), 0, 3));
    EXPECT_EQ(count(plan, OpKind::all_reduce), 1);  // the embedding's
    EXPECT_EQ(count(plan, OpKind::all_gather), 2 + 2 + 1);  // inputs and outputs of both linears, and the logits
  }
}

TEST(TensorSlicing, GroupsThatACutWouldBreakAreGatheredOver) {
  ModelSpec spec = llama_like(1);
  spec.hidden = 256;
  spec.layers[0].attention.heads = 8;
  spec.layers[0].attention.kv_heads = 8;
  spec.layers[0].attention.head_dim = 32;
  spec.layers[0].attention.rope->rotary_dim = 32;
  spec.layers[0].mlp.intermediate = 512;
  PlanOptions options = plan_options();
  for (const WeightDeclaration& weight : declare_weights(spec))
    options.weight_formats.push_back(is_vector(weight.id.slot) ? formats::f32 : formats::int4);
  EXPECT_EQ(count(sliced(build_plan(spec, options), 0, 4), OpKind::all_reduce), 1 + 2);
  spec.layers[0].attention.head_dim = 24;  // a rank's heads end within a group of 32
  spec.layers[0].attention.rope->rotary_dim = 24;
  const Plan plan = sliced(build_plan(spec, options), 0, 8);
  EXPECT_EQ(count(plan, OpKind::all_reduce), 1 + 1);
  EXPECT_EQ(count(plan, OpKind::all_gather), 2 + 1);
}

TEST(TensorSlicing, EveryFamilyOnEveryNumberOfRanksMeetsInTheSameOrder) {
  for (const PlanOutput output :
       {PlanOutput::logits, PlanOutput::greedy, PlanOutput::hidden, PlanOutput::mean, PlanOutput::pooler}) {
    for (const ModelSpec& spec : {llama_like(3), gpt2_like(3), neox_like(3), bert_like(3), mixtral_like(3),
                                  qwen_moe_like(3), gpt_moe_like(3), sigmoid_moe_like(3), normed_heads(3, false)}) {
      const bool encodes = spec.head.kind == HeadKind::hidden;
      if (encodes == (output == PlanOutput::logits || output == PlanOutput::greedy)) continue;
      for (const DataType dtype : {DataType::f32, DataType::bf16}) {
        PlanOptions options = plan_options(output);
        options.dtype = dtype;
        const Plan whole = build_plan(spec, options);
        for (int ranks = 1; ranks <= 5; ++ranks) {
          std::vector<Plan> plain, fused;
          for (int rank = 0; rank < ranks; ++rank) {
            plain.push_back(sliced(whole, rank, ranks));
            fused.push_back(deep_fusion(plain.back()));
          }
          verify_together(plain);
          verify_together(fused);
          for (const Plan& plan : fused) {
            EXPECT_EQ(plan.find(to_string(output))->shape, whole.find(to_string(output))->shape);
            EXPECT_EQ(plan.find(to_string(output))->kind, BufferKind::output);
          }
        }
      }
    }
  }
}

TEST(TensorSlicing, TheMatricesOfAllRanksAreTheModel) {
  for (const ModelSpec& spec : {llama_like(2), gpt2_like(2), neox_like(2), mixtral_like(2), qwen_moe_like(2),
                                gpt_moe_like(2), sigmoid_moe_like(2)}) {
    const Plan whole = plan_of(spec);
    for (int ranks = 2; ranks <= 5; ++ranks) {
      for (std::size_t i = 0; i < whole.weights.size(); ++i) {
        const WeightDeclaration& weight = whole.weights[i];
        if (is_vector(weight.id.slot) || weight.id.slot == Slot::key || weight.id.slot == Slot::value) continue;
        std::int64_t elements = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const WeightDeclaration own = sliced(whole, rank, ranks).weights[i];
          elements += own.rows * own.columns;
        }
        const bool everywhere = weight.id.slot == Slot::position_embedding || weight.id.slot == Slot::router ||
                                weight.id.slot == Slot::shared_router;
        EXPECT_EQ(elements, weight.rows * weight.columns * (everywhere ? ranks : 1)) << to_string(weight.id);
      }
    }
  }
}

}  // namespace
}  // namespace lamella::testing
