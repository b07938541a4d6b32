#include "plan/passes/pipeline_stages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "plan/passes/deep_fusion.h"
#include "plan/passes/tensor_slicing.h"
#include "plans.h"

namespace lamella::testing {
namespace {

using Layers = std::vector<ShardRange>;

std::int64_t count(const Plan& plan, OpKind kind) { return std::ranges::count(plan.ops, kind, &Op::kind); }

TEST(PipelineStages, EachHasItsLayersAndPassesTheResidualOn) {
  const Plan plan = plan_of(llama_like(2));
  const Layers layers = {{0, 1}, {1, 2}};
  const std::string first = to_table(deep_fusion(pipeline_stages(plan, layers, 0))),
                    last = to_table(deep_fusion(pipeline_stages(plan, layers, 1)));
  EXPECT_NE(first.find("embed "), std::string::npos);
  EXPECT_NE(first.find("0   qkv "), std::string::npos);
  EXPECT_EQ(first.find("1   qkv "), std::string::npos);
  EXPECT_EQ(first.find("logits"), std::string::npos);
  const std::string sent = "-             send             0.residual[T, 36] -> \n";
  EXPECT_EQ(first.substr(first.size() - sent.size()), sent);
  EXPECT_EQ(last.substr(0, last.find('\n')), "-             receive           -> 0.residual[T, 36]");
  EXPECT_NE(last.find("rope_table"), std::string::npos) << "computed by each stage from the step's inputs";
  EXPECT_EQ(last.find("embed "), std::string::npos);
  EXPECT_NE(last.find("logits"), std::string::npos);
}

TEST(PipelineStages, TogetherTheyAreThePlan) {
  for (const ModelSpec& spec : {llama_like(5), gpt2_like(5), neox_like(5)}) {
    const Plan plan = plan_of(spec);
    for (int stages = 2; stages <= 5; ++stages) {
      const Layers layers = balance_stages(plan, stages);
      std::int64_t ops = 0, next = 0;
      std::set<std::string> weights;
      for (int stage = 0; stage < stages; ++stage) {
        const ShardRange& own = layers[static_cast<std::size_t>(stage)];
        EXPECT_EQ(own.begin, next);
        EXPECT_GT(own.size(), 0);
        next = own.end;
        const Plan part = pipeline_stages(plan, layers, stage);
        for (const Op& op : part.ops) EXPECT_TRUE(op.layer < 0 || (op.layer >= own.begin && op.layer < own.end));
        const std::int64_t tables =
            count(part, OpKind::rope_table) - (stage == 0 ? count(plan, OpKind::rope_table) : 0);
        ops += std::ssize(part.ops) - count(part, OpKind::send) - count(part, OpKind::receive) - tables;
        for (const WeightDeclaration& weight : part.weights) weights.insert(to_string(weight.id));
        EXPECT_EQ(count(part, OpKind::receive), stage == 0 ? 0 : 1);
        EXPECT_EQ(count(part, OpKind::send), stage == stages - 1 ? 0 : 1);
      }
      EXPECT_EQ(next, std::ssize(spec.layers));
      EXPECT_EQ(ops, std::ssize(plan.ops));
      EXPECT_EQ(weights.size(), plan.weights.size());
    }
  }
}

TEST(PipelineStages, ATiedEmbeddingStandsOnBothEnds) {
  const Plan plan = plan_of(gpt2_like(3));
  const Layers layers = {{0, 1}, {1, 2}, {2, 3}};
  const auto has_table = [&](int stage) {
    const Plan part = pipeline_stages(plan, layers, stage);
    return std::ranges::any_of(part.weights,
                               [](const WeightDeclaration& w) { return w.id.slot == Slot::token_embedding; });
  };
  EXPECT_TRUE(has_table(0));
  EXPECT_FALSE(has_table(1));
  EXPECT_TRUE(has_table(2));
}

TEST(PipelineStages, AStageWithTheHeadHasFewerLayers) {
  ModelSpec spec = llama_like(12);
  spec.vocab = 4000;  // about as much as all layers together
  const Layers layers = balance_stages(plan_of(spec), 2);
  EXPECT_GT(layers[0].size(), layers[1].size());
  const Layers even = balance_stages(plan_of(llama_like(12)), 4);
  for (const ShardRange& own : even) EXPECT_LE(std::abs(own.size() - 3), 1);
}

TEST(PipelineStages, AreCutOutOfSlicedPlans) {
  const Plan sliced = tensor_slicing(plan_of(neox_like(4)), {.rank = 1, .ranks = 2});
  const Layers layers = {{0, 2}, {2, 4}};
  const Plan first = pipeline_stages(sliced, layers, 0), last = pipeline_stages(sliced, layers, 1);
  EXPECT_EQ(count(first, OpKind::all_reduce) + count(last, OpKind::all_reduce), count(sliced, OpKind::all_reduce));
  EXPECT_EQ(count(last, OpKind::all_gather), 1);
}

}  // namespace
}  // namespace lamella::testing
