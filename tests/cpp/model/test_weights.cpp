// declare_weights: names, shapes and order of every family's layer.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lamella/error.h"
#include "model/weights.h"
#include "specs.h"

namespace lamella::testing {
namespace {

std::vector<std::string> names(const ModelSpec& spec) {
  std::vector<std::string> out;
  for (const WeightDeclaration& weight : declare_weights(spec)) out.push_back(to_string(weight.id));
  return out;
}

WeightDeclaration find(const ModelSpec& spec, const std::string& name) {
  for (const WeightDeclaration& weight : declare_weights(spec))
    if (to_string(weight.id) == name) return weight;
  ADD_FAILURE() << name;
  return {};
}

TEST(DeclareWeights, SaysWhichMatrixMakesLogits) {
  for (ModelSpec spec : {llama_like(1), gpt2_like(1), neox_like(1), bert_like(1)}) {
    for (const bool tied : {true, false}) {
      const bool decoder = spec.head.kind == HeadKind::logits;
      if (decoder) spec.head.tied = tied;
      std::vector<std::string> found;
      for (const WeightDeclaration& weight : declare_weights(spec))
        if (weight.makes_logits) found.push_back(to_string(weight.id));
      const std::vector<std::string> expected = {tied ? "token_embedding" : "head"};
      EXPECT_EQ(found, decoder ? expected : std::vector<std::string>{}) << spec.family;
    }
  }
}

TEST(DeclareWeights, RefusesFormatsThatASlotCannotHave) {
  const auto refused = [](const WeightDeclaration& weight, const WeightFormat& format, const char* expected) {
    try {
      validate(weight, format);
      ADD_FAILURE() << to_string(weight.id) << " in " << to_string(format);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
    }
  };
  for (const Slot slot : {Slot::token_embedding, Slot::position_embedding, Slot::type_embedding}) {
    const WeightDeclaration table{.id = {.slot = slot}, .rows = 9, .columns = 64};
    refused(table, formats::int8_rotated, "looked up");
    EXPECT_NO_THROW(validate(table, formats::int8));
  }
  WeightDeclaration linear{.id = {.slot = Slot::mlp_down, .layer = 1}, .rows = 9, .columns = 65'536};
  for (const WeightFormat& format : {formats::int8, formats::int8_rotated}) EXPECT_NO_THROW(validate(linear, format));
  ++linear.columns;
  for (const WeightFormat& format : {formats::int8, formats::int8_rotated})
    refused(linear, format, "layers.1.mlp_down has 65537 inputs");
  for (const WeightFormat& format : {formats::int8_weight_only, formats::int4_a8})
    EXPECT_NO_THROW(validate(linear, format));
  refused(linear, {.element = Element::i4, .scale = Scale::f32}, "int4 needs groups");
}

TEST(DeclareWeights, LlamaInExecutionOrder) {
  const std::vector<std::string> expected = {
      "token_embedding", "layers.0.attention_norm",   "layers.0.query",    "layers.0.key",
      "layers.0.value",  "layers.0.attention_output", "layers.0.mlp_norm", "layers.0.mlp_gate",
      "layers.0.mlp_up", "layers.0.mlp_down",         "final_norm"};
  EXPECT_EQ(names(llama_like(1)), expected);
}

TEST(DeclareWeights, PostNormLayersHaveTheirNormsAfterwards) {
  const std::vector<std::string> expected = {"token_embedding",
                                             "position_embedding",
                                             "type_embedding",
                                             "embedding_norm",
                                             "embedding_norm_bias",
                                             "layers.0.query",
                                             "layers.0.query_bias",
                                             "layers.0.key",
                                             "layers.0.key_bias",
                                             "layers.0.value",
                                             "layers.0.value_bias",
                                             "layers.0.attention_output",
                                             "layers.0.attention_output_bias",
                                             "layers.0.attention_norm",
                                             "layers.0.attention_norm_bias",
                                             "layers.0.mlp_up",
                                             "layers.0.mlp_up_bias",
                                             "layers.0.mlp_down",
                                             "layers.0.mlp_down_bias",
                                             "layers.0.mlp_norm",
                                             "layers.0.mlp_norm_bias",
                                             "pooler",
                                             "pooler_bias"};
  EXPECT_EQ(names(bert_like(1)), expected);
}

TEST(DeclareWeights, ExpertsFollowTheirRouterAndTheSharedOne) {
  ModelSpec spec = qwen_moe_like(1);
  spec.layers[0].mlp.experts->count = 3;
  const std::vector<std::string> all = names(spec);
  const auto norm = std::ranges::find(all, "layers.0.mlp_norm");
  const std::vector<std::string> expected = {"layers.0.mlp_norm",           "layers.0.router",
                                             "layers.0.shared_router",      "layers.0.shared_gate",
                                             "layers.0.shared_up",          "layers.0.shared_down",
                                             "layers.0.experts.0.mlp_gate", "layers.0.experts.0.mlp_up",
                                             "layers.0.experts.0.mlp_down", "layers.0.experts.1.mlp_gate",
                                             "layers.0.experts.1.mlp_up",   "layers.0.experts.1.mlp_down",
                                             "layers.0.experts.2.mlp_gate", "layers.0.experts.2.mlp_up",
                                             "layers.0.experts.2.mlp_down", "final_norm"};
  EXPECT_EQ(std::vector<std::string>(norm, all.end()), expected);
  EXPECT_EQ(find(spec, "layers.0.router").rows, 3);
  EXPECT_EQ(find(spec, "layers.0.experts.1.mlp_up").rows, 34);
  EXPECT_EQ(find(spec, "layers.0.experts.1.mlp_up").segment, Segment::experts);
  EXPECT_EQ(find(spec, "layers.0.router").segment, Segment::norms_qkv);
  EXPECT_EQ(find(spec, "layers.0.shared_up").segment, Segment::shared_expert);
  EXPECT_EQ(find(sigmoid_moe_like(), "layers.1.router_bias").columns, 9);
  EXPECT_EQ(find(gpt_moe_like(), "layers.1.experts.5.mlp_down_bias").columns, 30);
  EXPECT_EQ(find(gpt_moe_like(), "layers.0.mlp_down_bias").columns, 30);
  EXPECT_EQ(find(normed_heads(1, false), "layers.0.query_norm").columns, 6);
  EXPECT_EQ(find(normed_heads(1, true), "layers.0.query_norm").columns, 36);
  EXPECT_EQ(find(normed_heads(1, true), "layers.0.key_norm").columns, 12);
}

TEST(DeclareWeights, ShapesFollowGroupedHeads) {
  const ModelSpec spec = llama_like();
  EXPECT_EQ(find(spec, "layers.1.query").rows, 36);
  EXPECT_EQ(find(spec, "layers.1.key").rows, 12);
  EXPECT_EQ(find(spec, "layers.1.key").columns, 36);
  EXPECT_EQ(find(spec, "layers.1.attention_output").columns, 36);
  EXPECT_EQ(find(spec, "layers.1.mlp_down").columns, 50);
  EXPECT_EQ(find(gpt2_like(), "layers.0.mlp_up_bias").columns, 70);
  EXPECT_EQ(find(gpt2_like(), "position_embedding").rows, 64);
}

TEST(DeclareWeights, SegmentsAreTheDesigns) {
  EXPECT_EQ(find(gpt2_like(), "layers.0.attention_norm").segment, Segment::norms_qkv);
  EXPECT_EQ(find(gpt2_like(), "layers.0.value_bias").segment, Segment::norms_qkv);
  EXPECT_EQ(find(gpt2_like(), "layers.0.mlp_norm").segment, Segment::norms_qkv);
  EXPECT_EQ(find(gpt2_like(), "layers.0.attention_output_bias").segment, Segment::attention_output);
  EXPECT_EQ(find(llama_like(), "layers.0.mlp_gate").segment, Segment::mlp_up);
  EXPECT_EQ(find(llama_like(), "layers.0.mlp_down").segment, Segment::mlp_down);
  EXPECT_EQ(find(neox_like(), "head").segment, Segment::head);
}

TEST(DeclareWeights, EachWeightOnce) {
  for (const ModelSpec& spec : {llama_like(3), gpt2_like(3), neox_like(3), bert_like(3), mixtral_like(3),
                                qwen_moe_like(3), gpt_moe_like(3), sigmoid_moe_like(3)}) {
    const std::vector<std::string> all = names(spec);
    EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), all.size()) << spec.family;
  }
}

TEST(ParameterCount, CountsTiedWeightsOnce) {
  ModelSpec spec = llama_like();
  const std::int64_t tied = parameter_count(spec);
  spec.head.tied = false;
  EXPECT_EQ(parameter_count(spec) - tied, 101 * 36);
}

}  // namespace
}  // namespace lamella::testing
