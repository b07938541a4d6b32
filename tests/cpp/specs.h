// Small models for tests: one spec a family of layer, sizes off any tile grid.
#pragma once

#include "model/model_spec.h"

namespace lamella::testing {

inline NormSpec layer_norm() { return {.kind = NormKind::layer_norm, .eps = 1e-5F, .bias = true}; }
inline NormSpec rms_norm() { return {.kind = NormKind::rms_norm, .eps = 1e-6F}; }

/// Grouped heads, RoPE, gated MLP, tied head.
inline ModelSpec llama_like(int layers = 2) {
  ModelSpec spec{.family = "llama", .vocab = 101, .hidden = 36, .max_positions = 128};
  spec.embedding.positions = PositionKind::rotary;
  const LayerSpec layer{
      .residual = Residual::sequential,
      .attention_norm = rms_norm(),
      .attention = {.heads = 6, .kv_heads = 2, .head_dim = 6, .scale = 0.408F, .rope = RopeSpec{.rotary_dim = 6}},
      .mlp_norm = rms_norm(),
      .mlp = {.intermediate = 50, .activation = Activation::silu, .gated = true}};
  spec.layers.assign(static_cast<std::size_t>(layers), layer);
  spec.head = {.kind = HeadKind::logits, .norm = rms_norm(), .tied = true};
  return spec;
}

/// Learned positions, LayerNorm, biases everywhere.
inline ModelSpec gpt2_like(int layers = 2) {
  ModelSpec spec{.family = "gpt2", .vocab = 67, .hidden = 30, .max_positions = 64};
  spec.embedding.positions = PositionKind::learned;
  spec.embedding.position_rows = 64;
  const LayerSpec layer{
      .residual = Residual::sequential,
      .attention_norm = layer_norm(),
      .attention = {.heads = 5, .kv_heads = 5, .head_dim = 6, .scale = 0.408F, .qkv_bias = true, .output_bias = true},
      .mlp_norm = layer_norm(),
      .mlp = {.intermediate = 70, .activation = Activation::gelu_tanh, .up_bias = true, .down_bias = true}};
  spec.layers.assign(static_cast<std::size_t>(layers), layer);
  spec.head = {.kind = HeadKind::logits, .norm = layer_norm(), .tied = true};
  return spec;
}

/// Parallel residual, partial RoPE, untied head.
inline ModelSpec neox_like(int layers = 2) {
  ModelSpec spec = gpt2_like(layers);
  spec.family = "gpt_neox";
  spec.embedding = {.positions = PositionKind::rotary};
  for (LayerSpec& layer : spec.layers) {
    layer.residual = Residual::parallel;
    layer.attention.rope = RopeSpec{.rotary_dim = 2};
    layer.mlp.activation = Activation::gelu;
  }
  spec.head.tied = false;
  return spec;
}

/// Bidirectional, post-norm, token types, pooler.
inline ModelSpec bert_like(int layers = 2) {
  ModelSpec spec = gpt2_like(layers);
  spec.family = "bert";
  spec.embedding.token_types = 2;
  spec.embedding.norm = layer_norm();
  for (LayerSpec& layer : spec.layers) {
    layer.residual = Residual::post_norm;
    layer.attention.causal = false;
    layer.mlp.activation = Activation::gelu;
  }
  spec.head = {.kind = HeadKind::hidden, .pooler = true};
  return spec;
}

/// Every layer a mixture with renormalised weights.
inline ModelSpec mixtral_like(int layers = 2) {
  ModelSpec spec = llama_like(layers);
  spec.family = "mixtral";
  for (LayerSpec& layer : spec.layers) {
    layer.mlp.intermediate = 0;
    layer.mlp.experts = {.count = 5, .top_k = 2, .intermediate = 50, .router = RouterKind::softmax_top_k_renormalised};
  }
  return spec;
}

/// A gated shared expert beside experts whose weights are not renormalised.
inline ModelSpec qwen_moe_like(int layers = 2) {
  ModelSpec spec = llama_like(layers);
  spec.family = "qwen2_moe";
  for (LayerSpec& layer : spec.layers) {
    layer.attention.qkv_bias = true;
    layer.mlp.intermediate = 0;
    layer.mlp.experts = {.count = 7, .top_k = 3, .intermediate = 34, .shared_intermediate = 50, .shared_gate = true};
  }
  return spec;
}

/// Norms of each head's queries and keys, or of a token's heads together, before experts.
inline ModelSpec normed_heads(int layers, bool together) {
  ModelSpec spec = mixtral_like(layers);
  spec.family = together ? "olmoe" : "qwen3_moe";
  for (LayerSpec& layer : spec.layers) {
    layer.attention.query_norm = layer.attention.key_norm = rms_norm();
    layer.attention.norm_across_heads = together;
  }
  return spec;
}

/// The paper's: dense and sparse layers in turn, one expert a token, biases.
inline ModelSpec gpt_moe_like(int layers = 2) {
  ModelSpec spec = gpt2_like(layers);
  spec.family = "gpt_moe";
  for (std::size_t i = 1; i < spec.layers.size(); i += 2) {
    spec.layers[i].mlp.intermediate = 0;
    spec.layers[i].mlp.experts = {.count = 6, .top_k = 1, .intermediate = 70, .router = RouterKind::top_1};
  }
  return spec;
}

/// Sigmoid scores with a bias of the choice, in parallel layers, and a shared expert that nothing gates, with biases.
inline ModelSpec sigmoid_moe_like(int layers = 2) {
  ModelSpec spec = neox_like(layers);
  spec.family = "sigmoid_moe";
  for (LayerSpec& layer : spec.layers) {
    layer.mlp.intermediate = 0;
    layer.mlp.experts = {.count = 9,
                         .top_k = 4,
                         .intermediate = 70,
                         .router = RouterKind::sigmoid_with_bias,
                         .scale = 1.5F,
                         .shared_intermediate = 34};
  }
  return spec;
}

}  // namespace lamella::testing
