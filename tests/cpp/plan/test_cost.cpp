// Costs against hand-counted figures.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "lamella/error.h"
#include "memory/kv_pool.h"
#include "plan/cost.h"
#include "plan/passes/deep_fusion.h"
#include "plan/verify.h"
#include "plans.h"

namespace lamella::testing {
namespace {

Cost cost_of(const Plan& plan, OpKind kind, const StepShape& shape) {
  return cost(plan, *std::ranges::find(plan.ops, kind, &Op::kind), shape);
}

TEST(Cost, UniformStepCountsAttendedPositions) {
  // Two sequences bring 3 tokens each and end at 10: tokens see 8, 9 and 10 positions.
  const StepShape shape = StepShape::uniform(2, 3, 10);
  EXPECT_EQ(shape.tokens, 6);
  EXPECT_EQ(shape.attended, 2 * (8 + 9 + 10));
  EXPECT_EQ(shape.kv_tokens, 20);
  EXPECT_EQ(shape.kv_blocks, 1);
}

TEST(Cost, AWindowBoundsWhatAttentionReadsAndMultiplies) {
  ModelSpec spec = llama_like(1);  // 6 heads on 2 of 6 elements
  spec.layers[0].attention.window = 20;
  const Plan plan = build_plan(spec, {.kv_pool_blocks = 4, .bounds = {64, 8, 8, 8}});
  const std::int64_t row = 2 * 2 * 16 * 4, head_bytes = 6 * 6 * 4;
  const auto tables = [](const StepShape& shape) {
    return 4 * (shape.tokens + 2 * shape.sequences + shape.sequences * shape.kv_blocks);
  };
  const StepShape decode = StepShape::uniform(3, 1, 100), early = StepShape::uniform(3, 1, 10);
  const Cost late_cost = cost_of(plan, OpKind::attention, decode), early_cost = cost_of(plan, OpKind::attention, early);
  EXPECT_EQ(late_cost.flops, 4 * 3 * 20 * 6 * 6);
  EXPECT_EQ(late_cost.bytes_read, 3 * 20 * row + 3 * head_bytes + tables(decode));
  EXPECT_EQ(early_cost.flops, 4 * 3 * 10 * 6 * 6);
  EXPECT_EQ(early_cost.bytes_read, 3 * 10 * row + 3 * head_bytes + tables(early));
  const StepShape chunk = StepShape::uniform(1, 16, 100);  // reads 19 tokens before its first
  EXPECT_EQ(cost_of(plan, OpKind::attention, chunk).bytes_read, (19 + 16) * row + 16 * head_bytes + tables(chunk));
}

TEST(Cost, AStepBeyondTheRangeOfTheTablesIsRefused) {
  const auto code = [](const auto& call) {
    try {
      static_cast<void>(call());
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  constexpr std::int64_t large = (std::int64_t{1} << 31) - 1, huge = std::int64_t{1} << 62;
  for (const auto& [sequences, tokens, context] :
       {std::array{large, large, large},
        {std::int64_t{1} << 20, std::int64_t{1} << 22, std::int64_t{1} << 22},
        {huge, huge, huge},
        {0, 1, 1},
        {1, 0, 1},
        {1, 2, 1},
        {-1, -1, -1},
        {2, 1, std::int64_t{1} << 30}})
    EXPECT_EQ(code([&] { return StepShape::uniform(sequences, tokens, context); }), ErrorCode::invalid_argument)
        << sequences << " x " << tokens << " at " << context;

  const StepShape largest = StepShape::uniform(1, large, large);
  EXPECT_EQ(largest.attended, large * (large + 1) / 2);
  const Plan plan = deep_fusion(plan_of(llama_like()));
  EXPECT_EQ(cost_of(plan, OpKind::norm_mlp_up, largest).flops, 2 * 2 * large * 36 * 50);
  EXPECT_EQ(code([&] { return cost_of(plan, OpKind::layout_attention, largest); }), ErrorCode::invalid_argument);
}

TEST(Cost, LinearReadsWeightAndInputOnce) {
  const Cost query = cost_of(plan_of(llama_like()), OpKind::linear, StepShape::uniform(1, 5, 5));
  EXPECT_EQ(query.bytes_read, 4 * (48 * 36 + 5 * 36));  // 36 outputs are three tiles of 16
  EXPECT_EQ(query.bytes_streamed, 4 * 48 * 36);
  EXPECT_EQ(query.bytes_written, 4 * 5 * 36);
  EXPECT_EQ(query.flops, 2 * 5 * 36 * 36);
}

TEST(Cost, LinearReadsItsFormatsBytesAndAnEmbeddingItsRows) {
  const ModelSpec spec = llama_like(1);
  const auto reads = [&](const WeightFormat& format, OpKind kind) {
    PlanOptions options = plan_options();
    for (const WeightDeclaration& weight : declare_weights(spec))
      options.weight_formats.push_back(is_vector(weight.id.slot) ? formats::f32 : format);
    const Plan plan = build_plan(spec, options);
    const StepShape shape = StepShape::uniform(1, 5, 5);
    const std::int64_t inputs = kind == OpKind::embed ? 3 * 5 * 4 : 5 * 36 * 4;  // ids, positions and types; or x
    const Cost fused = cost_of(deep_fusion(plan), OpKind::embed, shape), plain = cost_of(plan, OpKind::embed, shape);
    EXPECT_EQ(fused.bytes_read, plain.bytes_read);
    EXPECT_EQ(weight_bytes_per_step(plan, shape), weight_bytes_per_step(deep_fusion(plan), shape));
    return cost_of(plan, kind, shape).bytes_read - inputs;
  };
  // 36 inputs: 48 rows of ...
  EXPECT_EQ(reads(formats::bf16, OpKind::linear), 48 * 36 * 2);
  EXPECT_EQ(reads(formats::int8, OpKind::linear), 48 * (36 + 4));
  EXPECT_EQ(reads(formats::int4, OpKind::linear), 48 * (16 + 4 + 2 * 2));  // groups of 32 and 4
  EXPECT_EQ(reads(formats::q4_1, OpKind::linear), 48 * (16 + 4 + 2 * 4));
  EXPECT_EQ(reads(formats::int8, OpKind::embed), 5 * (36 + 4));
  EXPECT_EQ(reads(formats::int4, OpKind::embed), 5 * (16 + 4 + 2 * 2));
}

TEST(Cost, ExpertsAreReadAsOftenAsEvenlyRoutedTokensTouchThem) {
  const Plan plan = deep_fusion(plan_of(mixtral_like(1)));  // 2 of 5 experts, 36 to 50 and back
  const auto tables = [](std::int64_t tokens) { return 4 * (2 * tokens * 36 + 6); };  // rows, and where they begin
  const Cost one = cost_of(plan, OpKind::expert_up, StepShape::uniform(1, 1, 5));
  EXPECT_EQ(one.bytes_streamed, 2 * (2 * 64 * 36 * 4));  // two experts, gate and up, 64 rows each
  EXPECT_EQ(one.bytes_read, one.bytes_streamed + tables(1));
  EXPECT_EQ(one.flops, 2 * 2 * (2 * 36 * 50));
  const Cost three = cost_of(plan, OpKind::expert_up, StepShape::uniform(3, 1, 5));
  EXPECT_EQ(three.bytes_streamed, 72'253);  // 5 * (1 - (3/5)^3) = 3.92 experts of 18,432 bytes
  EXPECT_EQ(three.flops, 3 * one.flops);
  EXPECT_EQ(cost_of(plan, OpKind::norm_route, StepShape::uniform(1, 3, 5)).flops, 2 * 3 * 36 * 5);
  const std::int64_t all = 5 * (2 * 64 * 36 * 4);
  EXPECT_EQ(cost_of(plan, OpKind::expert_up, StepShape::uniform(1, 500, 500)).bytes_streamed, all);
}

TEST(Cost, AttentionReadsTheWholeKvOfEachSequence) {
  const StepShape shape = StepShape::uniform(2, 1, 33);
  const Cost attention = cost_of(plan_of(llama_like()), OpKind::attention, shape);
  const std::int64_t tables = 4 * (2 + 4 + 2 * 3);  // positions, sequences, block tables of three blocks
  EXPECT_EQ(attention.bytes_read,
            4 * 2 * 36 + tables + 2 * 33 * (2 * 2 * 16) * 4);  // heads of 6 take 16 places in the cache
  EXPECT_EQ(attention.bytes_streamed, 2 * 33 * (2 * 2 * 16) * 4);
  EXPECT_EQ(attention.flops, 4 * 2 * 33 * 36);
}

TEST(Cost, KvIsCountedInTheTypeInWhichTheCacheHoldsIt) {
  const StepShape shape = StepShape::uniform(2, 1, 33);
  const std::pair<DataType, std::int64_t> bytes_of_a_head[] = {
      {DataType::f32, 16 * 4}, {DataType::f16, 16 * 2}, {DataType::bf16, 16 * 2}, {DataType::i8, 16 + 4}};
  for (const auto& [type, bytes] : bytes_of_a_head) {
    PlanOptions options{.kv_dtype = type, .kv_pool_blocks = 12, .bounds = shape};
    const Plan plan = build_plan(llama_like(), options);
    verify(plan);
    const std::int64_t tables = 4 * (2 + 4 + 2 * 3);
    EXPECT_EQ(cost_of(plan, OpKind::attention, shape).bytes_read, 4 * 2 * 36 + tables + 2 * 33 * (2 * 2) * bytes);
    EXPECT_EQ(cost_of(plan, OpKind::kv_write, shape).bytes_written, 2 * (2 * 2) * bytes);
    EXPECT_EQ(KvMemory::bytes_per_block(plan),
              llama_like().layers.size() * static_cast<std::size_t>(16 * (2 * 2) * bytes));
  }
}

TEST(Cost, FusionSavesActivationTrafficAndNoFlopsOfMatrices) {
  const StepShape shape = StepShape::uniform(3, 4, 9);
  for (const ModelSpec& spec : {llama_like(), gpt2_like(), neox_like()}) {
    const Plan plain = plan_of(spec), fused = deep_fusion(plain);
    Cost before, after;
    for (const Op& op : plain.ops) before += cost(plain, op, shape);
    for (const Op& op : fused.ops) after += cost(fused, op, shape);
    EXPECT_LT(after.bytes_read, before.bytes_read) << spec.family;
    EXPECT_LT(after.bytes_written, before.bytes_written) << spec.family;
    EXPECT_EQ(weight_bytes_per_step(plain, shape), weight_bytes_per_step(fused, shape)) << spec.family;
  }
}

TEST(Cost, StepReadsEveryMatrixOnceAndOnlyUsedRowsOfTheEmbedding) {
  const ModelSpec spec = gpt2_like();
  std::int64_t expected = 0;
  for (const WeightDeclaration& weight : declare_weights(spec)) {
    const std::int64_t rows = is_vector(weight.id.slot) ? 1 : (weight.rows + 15) / 16 * 16;
    if (weight.id.slot != Slot::position_embedding) expected += rows * weight.columns * 4;
  }
  expected += 2 * 1 * 30 * 4;  // one token's row of both embeddings; the whole token table is read as the head
  EXPECT_EQ(weight_bytes_per_step(plan_of(spec), StepShape::uniform(1, 1, 7)), expected);
}

}  // namespace
}  // namespace lamella::testing
