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

}  // namespace lamella::testing
