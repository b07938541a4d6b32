#include "io/containers/spec_json.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/check.h"
#include "lamella/error.h"
#include "specs.h"

namespace lamella::testing {
namespace {

ModelSpec parsed(const std::string& text) {
  const io::json::Document document(text, "test");
  return spec_from_json(document.root());
}

/// Every field away from its default, so that one which is left out cannot come back. The structured bindings stop
/// compiling when a record gains a field: add it to spec_json.cpp and here.
ModelSpec unusual() {
  ModelSpec spec = llama_like(2);
  RopeSpec rope;
  auto& [rotary_dim, theta, scaling, factor, original, fast, slow, truncate, low, high, shorts, longs, attention_factor,
         mscale, mscale_all] = rope;
  rotary_dim = 4, theta = 12345.678, scaling = RopeScaling::yarn, factor = 3.3, original = 77, fast = 31.5, slow = 1.25,
  truncate = false, low = 1.5, high = 3.5, shorts = {1.1F, 1.3F}, longs = {2.7F, 3.1F}, attention_factor = 0.1,
  mscale = 0.7, mscale_all = 0.9;
  NormSpec norm = layer_norm();
  auto& [norm_kind, eps, norm_bias] = norm;
  eps = 3e-7F;
  auto& [heads, kv_heads, head_dim, scale, causal, qkv_bias, output_bias, layer_rope, query_norm, key_norm, window,
         softcap, across] = spec.layers[1].attention;
  scale = 0.1F, qkv_bias = true, output_bias = true, layer_rope = rope;
  auto& [intermediate, activation, gated, up_bias, down_bias, experts] = spec.layers[1].mlp;
  intermediate = 64, activation = Activation::quick_gelu, gated = false, up_bias = true, down_bias = true;
  auto& [residual, attention_norm, attention, mlp_norm, mlp] = spec.layers[1];
  residual = Residual::parallel, attention_norm = norm, mlp_norm = norm;
  auto& [positions, position_rows, position_offset, token_types, embedding_norm, embedding_scale] = spec.embedding;
  embedding_norm = norm;
  auto& [head_kind, head_norm, tied, bias, pooler] = spec.head;
  head_norm = norm, tied = false, bias = true;
  auto& [family, vocab, hidden, max_positions, embedding, layers, head] = spec;
  family = "a family-2.0", max_positions = 77;
  return spec;
}

TEST(SpecJson, ComesBackAsItWas) {
  for (const ModelSpec& spec : {llama_like(3), gpt2_like(), neox_like(), bert_like(), unusual(), mixtral_like(),
                                qwen_moe_like(), gpt_moe_like(), sigmoid_moe_like(), normed_heads(2, true)}) {
    const std::string text = to_json(spec);
    EXPECT_EQ(to_json(parsed(text)), text) << spec.family;
    std::string pieces;
    write_json(spec, [&](std::string_view piece) { pieces += piece; });
    EXPECT_EQ(pieces, text);
  }
  const ExpertsSpec experts = *sigmoid_moe_like().layers[1].mlp.experts,
                    read = *parsed(to_json(sigmoid_moe_like())).layers[1].mlp.experts;
  EXPECT_EQ(read.router, experts.router);
  EXPECT_EQ(read.scale, experts.scale);
  EXPECT_EQ(read.shared_intermediate, experts.shared_intermediate);
  const ModelSpec spec = unusual(), back = parsed(to_json(spec));
  EXPECT_EQ(back.layers[1].attention.rope, spec.layers[1].attention.rope);
  EXPECT_EQ(back.layers[1].attention.scale, spec.layers[1].attention.scale);
  EXPECT_EQ(back.head.norm, spec.head.norm);
}

/// Numbers that are written with an exponent, or would have more digits than a 64-bit integer.
TEST(SpecJson, ExtremeNumbersComeBackBitForBit) {
  const double doubles[] = {1.2345678e20,
                            0x1p63,
                            0x1p64,
                            9223372036854774784.0,
                            1e19,
                            1e22,
                            std::numeric_limits<double>::max(),
                            std::numeric_limits<double>::min(),
                            std::numeric_limits<double>::denorm_min(),
                            0.1};
  for (const double value : doubles) {
    ModelSpec spec = unusual();
    spec.layers[1].attention.rope->attention_factor = value;
    const std::string text = to_json(spec);
    ASSERT_NO_THROW(static_cast<void>(parsed(text))) << text;
    EXPECT_EQ(parsed(text).layers[1].attention.rope->attention_factor, value);
    EXPECT_EQ(to_json(parsed(text)), text);
  }
  const float floats[] = {1.2345678e20F,
                          0x1p63F,
                          1e19F,
                          std::numeric_limits<float>::max(),
                          std::numeric_limits<float>::min(),
                          std::numeric_limits<float>::denorm_min()};
  for (const float scale : floats) {
    ModelSpec spec = unusual();
    spec.layers[1].attention.scale = scale;
    const std::string text = to_json(spec);
    ASSERT_NO_THROW(static_cast<void>(parsed(text))) << text;
    EXPECT_EQ(parsed(text).layers[1].attention.scale, scale);
    EXPECT_EQ(to_json(parsed(text)), text);
  }
}

std::string refusal(const std::string& text) {
  try {
    static_cast<void>(parsed(text));
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::string with(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(SpecJson, IsWrittenInPieces) {
  const ModelSpec spec = gpt2_like(40);
  std::size_t longest = 0;
  std::string pieces;
  write_json(spec, [&](std::string_view piece) {
    longest = std::max(longest, piece.size());
    pieces += piece;
  });
  EXPECT_EQ(pieces, to_json(spec));
  EXPECT_LT(longest, 5000U);
}

TEST(SpecJson, RefusesWhatItDoesNotKnowByName) {
  const std::string text = to_json(gpt2_like(1));
  const auto expect = [&](std::string_view from, std::string_view to, std::string_view message) {
    EXPECT_NE(refusal(with(text, from, to)).find(message), std::string::npos) << refusal(with(text, from, to));
  };
  expect("\"vocab\":67,", "", "vocab is missing");
  expect("\"vocab\":67", "\"vocab\":-67", "vocab is not a whole number");
  expect("\"vocab\":67", "\"vocab\":67.5", "vocab is not a whole number");
  expect("\"vocab\":67", "\"vocab\":9223372036854775808", "vocab is not a whole number in range");
  expect("\"heads\":5", "\"heads\":2147483648", "layers[0].attention.heads is not a whole number in range");
  expect("\"vocab\":67", "\"vocab\":67,\"speed\":9", "speed\" is unknown");
  expect("\"gelu_tanh\"", "\"swish\"", "layers[0].mlp.activation has a value that is unknown");
  expect("\"causal\":true", "\"causal\":1", "layers[0].attention.causal is not true or false");
  expect("\"scale\":1", "\"scale\":1e60", "embedding.scale is not a number in range");
  expect("\"layers\":[", "\"layers\":[7,", "layers[0] is not an object");
  expect("\"heads\":5", "\"heads\":7", "heads");  // validate(): heads and kv_heads contradict
  expect("\"family\":\"gpt2\"", "\"family\":\"g\\u00e9\"", "family is not at most 256 characters of plain ASCII");
  expect("\"family\":\"gpt2\"", concat("\"family\":\"", std::string(257, 'x'), '"'), "family is not at most 256");
  std::string many;
  for (int i = 0; i < 60; ++i) many += concat("\"k", i, "\":0,");
  expect("\"vocab\"", many + "\"vocab\"", "is not an object of at most 64 fields");
  EXPECT_NE(refusal("[]").find("is not an object"), std::string::npos);
}

}  // namespace
}  // namespace lamella::testing
