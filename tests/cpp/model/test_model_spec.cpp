// Every rule of validate, broken once: the field is named, and named room is told apart from contradictions.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "lamella/error.h"
#include "model/model_spec.h"
#include "specs.h"

namespace lamella::testing {
namespace {

TEST(Validate, AcceptsEveryFamilysLayer) {
  for (const ModelSpec& spec : {llama_like(), gpt2_like(), neox_like(), bert_like()})
    EXPECT_NO_THROW(validate(spec)) << spec.family;
}

TEST(Validate, AcceptsParallelLayersThatShareOneNorm) {
  ModelSpec spec = neox_like();
  for (LayerSpec& layer : spec.layers) layer.mlp_norm = {};
  EXPECT_NO_THROW(validate(spec));
}

struct Lie {
  const char* named;  // the path that the message must contain
  std::function<void(ModelSpec&)> tell;
  ErrorCode code = ErrorCode::invalid_checkpoint;
};

void expect_refused(ModelSpec spec, const Lie& lie) {
  lie.tell(spec);
  try {
    validate(spec);
    ADD_FAILURE() << lie.named << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), lie.code) << error.what();
    EXPECT_NE(std::string(error.what()).find(lie.named), std::string::npos) << error.what();
  }
}

constexpr auto huge = std::numeric_limits<std::int64_t>::max();

TEST(Validate, RefusesContradictions) {
  const Lie lies[] = {
      {"vocab", [](ModelSpec& s) { s.vocab = 0; }},
      {"vocab", [](ModelSpec& s) { s.vocab = huge; }},
      {"hidden", [](ModelSpec& s) { s.hidden = -36; }},
      {"max_positions", [](ModelSpec& s) { s.max_positions = 0; }},
      {"layers", [](ModelSpec& s) { s.layers.clear(); }},
      {"layers", [](ModelSpec& s) { s.layers.resize(4097, s.layers.front()); }},
      {"layers.1.attention.heads", [](ModelSpec& s) { s.layers[1].attention.heads = 0; }},
      {"layers.0.attention.kv_heads", [](ModelSpec& s) { s.layers[0].attention.kv_heads = 4; }},
      {"layers.0.attention.kv_heads", [](ModelSpec& s) { s.layers[0].attention.kv_heads = 12; }},
      {"layers.0.attention.head_dim", [](ModelSpec& s) { s.layers[0].attention.head_dim = -1; }},
      {"layers.0.attention.query_width",
       [](ModelSpec& s) {
         s.layers[0].attention.heads = s.layers[0].attention.kv_heads = s.layers[0].attention.head_dim = 1 << 20;
       }},
      {"layers.0.attention.scale", [](ModelSpec& s) { s.layers[0].attention.scale = NAN; }},
      {"layers.1.attention.causal", [](ModelSpec& s) { s.layers[1].attention.causal = false; }},
      {"layers.0.attention.rope", [](ModelSpec& s) { s.layers[0].attention.rope.reset(); }},
      {"layers.0.attention.rope.rotary_dim", [](ModelSpec& s) { s.layers[0].attention.rope->rotary_dim = 5; }},
      {"layers.0.attention.rope.rotary_dim", [](ModelSpec& s) { s.layers[0].attention.rope->rotary_dim = 8; }},
      {"layers.0.attention.rope.theta", [](ModelSpec& s) { s.layers[0].attention.rope->theta = 0; }},
      {"layers.0.attention.rope.theta", [](ModelSpec& s) { s.layers[0].attention.rope->theta = NAN; }},
      {"layers.0.attention_norm.kind", [](ModelSpec& s) { s.layers[0].attention_norm = {}; }},
      {"layers.0.attention_norm.eps", [](ModelSpec& s) { s.layers[0].attention_norm.eps = -1e-5F; }},
      {"layers.0.mlp_norm.kind", [](ModelSpec& s) { s.layers[0].mlp_norm = {}; }},
      {"layers.0.mlp.intermediate", [](ModelSpec& s) { s.layers[0].mlp.intermediate = huge; }},
      {"layers.0.mlp.activation", [](ModelSpec& s) { s.layers[0].mlp.activation = static_cast<Activation>(99); }},
      {"layers.0.residual", [](ModelSpec& s) { s.layers[0].residual = static_cast<Residual>(99); }},
      {"embedding.position_rows", [](ModelSpec& s) { s.embedding.position_rows = 7; }},
      {"embedding.token_types", [](ModelSpec& s) { s.embedding.token_types = -1; }},
      {"layers.0.attention.window", [](ModelSpec& s) { s.layers[0].attention.window = -1; }},
      {"head.pooler", [](ModelSpec& s) { s.head.pooler = true; }},
      {"head.tied or bias", [](ModelSpec& s) { s.head.kind = HeadKind::hidden; }},
      {"token_embedding", [](ModelSpec& s) { s.vocab = s.hidden = std::numeric_limits<std::int32_t>::max(); }},
  };
  for (const Lie& lie : lies) expect_refused(llama_like(), lie);
}

TEST(Validate, RefusesAWindowOnBidirectionalAttention) {
  expect_refused(bert_like(), {"layers.0.attention.window", [](ModelSpec& s) { s.layers[0].attention.window = 8; }});
}

TEST(Validate, RefusesLearnedPositionsThatDoNotReachTheContext) {
  expect_refused(gpt2_like(), {"embedding.position_rows", [](ModelSpec& s) { s.max_positions = 65; }});
  expect_refused(gpt2_like(), {"embedding.position_rows", [](ModelSpec& s) { s.embedding.position_offset = 2; }});
}

TEST(Validate, RefusesRopeScalingsThatCannotBeComputed) {
  const auto with = [](RopeSpec rope) {
    return [rope](ModelSpec& s) {
      for (LayerSpec& layer : s.layers) layer.attention.rope = rope;
    };
  };
  const Lie lies[] = {
      {"rope.factor", with({.rotary_dim = 6, .scaling = RopeScaling::linear, .factor = 0})},
      {"rope.original_max_positions", with({.rotary_dim = 6, .scaling = RopeScaling::yarn, .factor = 2})},
      {"rope.factor",
       with({.rotary_dim = 6, .scaling = RopeScaling::dynamic_ntk, .factor = 0.5, .original_max_positions = 9})},
      {"rope.rotary_dim",
       with({.rotary_dim = 2, .scaling = RopeScaling::dynamic_ntk, .factor = 2, .original_max_positions = 9})},
      {"rope.theta",
       with({.rotary_dim = 6, .theta = 1, .scaling = RopeScaling::yarn, .factor = 2, .original_max_positions = 9})},
      {"rope.short_factor", with({.rotary_dim = 6, .scaling = RopeScaling::longrope, .original_max_positions = 9})},
      {"rope.high_freq_factor", with({.rotary_dim = 6,
                                      .scaling = RopeScaling::llama3,
                                      .factor = 2,
                                      .original_max_positions = 9,
                                      .low_freq_factor = 4})},
  };
  for (const Lie& lie : lies) expect_refused(llama_like(), lie);
}

TEST(Validate, RefusesExpertsThatContradictThemselves) {
  for (const ModelSpec& spec : {mixtral_like(), qwen_moe_like(), gpt_moe_like(), sigmoid_moe_like()})
    EXPECT_NO_THROW(validate(spec)) << spec.family;
  const auto with = [](auto change) { return [change](ModelSpec& s) { change(*s.layers[1].mlp.experts); }; };
  const Lie lies[] = {
      {"layers.1.mlp.intermediate", [](ModelSpec& s) { s.layers[1].mlp.intermediate = 50; }},
      {"layers.1.mlp.experts.count", with([](ExpertsSpec& e) { e.count = 0; })},
      {"layers.1.mlp.experts.count", with([](ExpertsSpec& e) { e.count = 1'000'000; })},
      {"layers.1.mlp.experts.top_k", with([](ExpertsSpec& e) { e.top_k = 0; })},
      {"layers.1.mlp.experts.top_k", with([](ExpertsSpec& e) { e.top_k = 8; })},
      {"layers.1.mlp.experts.top_k", with([](ExpertsSpec& e) { e.router = RouterKind::top_1; })},
      {"layers.1.mlp.experts.router", with([](ExpertsSpec& e) { e.router = static_cast<RouterKind>(99); })},
      {"layers.1.mlp.experts.intermediate", with([](ExpertsSpec& e) { e.intermediate = 0; })},
      {"layers.1.mlp.experts.shared_intermediate", with([](ExpertsSpec& e) { e.shared_intermediate = -1; })},
      {"layers.1.mlp.experts.shared_gate", with([](ExpertsSpec& e) { e.shared_intermediate = 0; })},
      {"layers.1.mlp.experts.scale", with([](ExpertsSpec& e) { e.scale = NAN; })},
      {"layers.1.mlp.experts.scale", with([](ExpertsSpec& e) { e.scale = 2.0F; })},
  };
  for (const Lie& lie : lies) expect_refused(qwen_moe_like(), lie);
}

TEST(Validate, TellsNamedRoomThatIsNotBuilt) {
  const Lie rooms[] = {
      {"layers.attention.window",
       [](ModelSpec& s) {
         s.layers[0].attention.window = 4096;
         s.layers[0].attention.kv_heads = 3;
       }},
      {"layers.attention.window",
       [](ModelSpec& s) {
         s.layers.assign(most_windows + 1, s.layers[0]);
         for (std::size_t i = 0; i < s.layers.size(); ++i) s.layers[i].attention.window = static_cast<int>(10 * i);
       }},
      {"layers.0.attention.logit_softcap", [](ModelSpec& s) { s.layers[0].attention.logit_softcap = 50; }},
      {"layers.0.attention.query_norm", [](ModelSpec& s) { s.layers[0].attention.query_norm = layer_norm(); }},
      {"embedding.scale", [](ModelSpec& s) { s.embedding.scale = 6; }},
  };
  for (Lie room : rooms) {
    room.code = ErrorCode::unsupported_model;
    expect_refused(llama_like(), room);
  }
}

}  // namespace
}  // namespace lamella::testing
