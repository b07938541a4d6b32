// The closed set of operations that a forward pass is made of.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "model/model_spec.h"

namespace lamella {

/// What an op computes. Inputs and outputs stand in this order in Op::inputs and Op::outputs; weights in any order,
/// found by their slot. T, S, R, B: symbol.h. H: hidden, Q: heads * head_dim, K: kv heads * head_dim, I: intermediate.
enum class OpKind : std::uint8_t {
  embed,         // token_ids, positions, token_types -> [T, H]; weights: token, position?, type? embedding
  norm,          // x -> y, both [T, H], with heads of each head by itself; weights: scale, bias?
  linear,        // x [n, in] -> y [n, out] = x W^T
  add_bias,      // x -> y
  rope_table,    // positions, rope_lengths -> angles [T, rotary_dim]: cos, then sin
  rope,          // x [T, heads * head_dim], angles -> y
  kv_write,      // k [T, K], v [T, K], step tables -> (kv state)
  split_heads,   // x [T, Q] -> [heads, T, head_dim]
  attention,     // q [heads, T, head_dim], step tables, kv state -> y, same shape as q
  merge_heads,   // x [heads, T, head_dim] -> [T, Q]
  activate,      // x -> act(x)
  activate_gated,  // gate, up -> act(gate) * up
  residual,      // a, b -> a + b; a may be float32 where b is not
  // Mixtures of experts (the paper's V-C). E: experts, k: of them a token's
  route,  // router logits [T, E] float32 -> experts [T, k] int32, their weights [T, k] float32; weights: bias?
  dispatch,  // x [T, H], experts -> rows [k*T, H] by expert, of one in the tokens' order; offsets [E + 1] int32: where
  // each expert's rows begin; places [T, k] int32: the row of each choice
  expert_linear,  // rows [k*T, in], offsets -> [k*T, out]: each expert's rows times its own matrix; weights: of every
  // expert a matrix, bias?
  combine,  // rows [k*T, H] float32, places, weights, shared [T, H] float32?, its gate's logits [T, 1] float32? ->
  // the weighted sum of a token's rows in the order of its choices, plus shared * sigmoid(logit)
  gather_rows,  // x [T, H], row_indices -> [R, H]
  mean_pool,  // x [T, H], step tables -> [S, H] float32
  best_token,  // logits [R, V] float32 -> [R, 2] float32: the best logit and, in the bits of a float, its token
  // What ranks do together (the paper's IV-A); all call it in the same order
  all_reduce,  // x -> the sum of all ranks' x
  all_gather,  // x [n, parts[rank]] -> [n, sum of parts]: all ranks' columns side by side
  best_of_ranks,  // [R, 2 * ranks], best_token of each rank -> [R, 2], the best of all
  // From stage to stage of a pipeline (IV-B)
  receive,  // -> what the stage before has sent
  send,  // x -> (the next stage)
  // Deep-Fusion's regions (the paper's III-D, and the head): each replaces a run of the ops above
  norm_qkv,  // x [T, H], angles?, step tables -> q [T, Q], (kv state)
  layout_attention,  // q [T, Q], step tables, kv state -> [T, Q]
  norm_mlp_up,  // x [T, H] -> [T, I]
  output_residual,  // x [T, in], residual [T, H] -> [T, H]
  bias_residual,  // x float32, residual -> x + biases + residual: what an all_reduce leaves of output_residual
  greedy_head,  // x [R, H] -> [R, 2] float32, as best_token
  norm_route,  // x [T, H] -> rows, offsets, places, weights of dispatch and route, shared gate's logits?
  expert_up,  // rows [k*T, H], offsets -> [k*T, I]: both linears and the activation
  combine_residual,  // as combine, then residual [T, H] -> [T, H]
};
[[nodiscard]] std::string_view to_string(OpKind kind) noexcept;

/// Whether ranks that share a layer meet in it.
[[nodiscard]] constexpr bool is_collective(OpKind kind) noexcept {
  return kind == OpKind::all_reduce || kind == OpKind::all_gather;
}

/// The Deep-Fusion region that an op belongs to; `none` is never fused.
enum class Region : std::uint8_t { none, qkv, attention, mlp_up, output, head, route, experts, combine };
[[nodiscard]] std::string_view to_string(Region region) noexcept;

/// Index into Plan::buffers and Plan::weights.
enum class BufferId : std::uint32_t {};
enum class WeightIndex : std::uint32_t {};

/// The constants of an op. Each kind reads the fields that its line above implies; the others keep their defaults.
struct OpAttributes {
  NormSpec norm;
  Activation activation = Activation::none;
  bool gated = false;
  std::optional<RopeSpec> rope;
  std::int32_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0.0F;
  bool causal = true;
  std::int32_t window = 0;  // tokens that a token sees, itself included; 0: all before it
  std::int32_t position_offset = 0;
  std::int32_t first_token = 0;  // embed, best_token: the token of the first row of a part of the vocabulary
  std::vector<std::int64_t> parts;  // all_gather: the columns of each rank; parts[rank] are this one's
  std::int32_t rank = 0;
  std::optional<ExpertsSpec> experts = {};  // of the layer, in ops of a mixture
};

/// One operation of a plan: what, on which buffers, with which weights, and where in the model it stands.
struct Op {
  OpKind kind;
  std::int32_t layer = -1;  // -1: before or after the layers
  Region region = Region::none;
  std::vector<BufferId> inputs;
  std::vector<BufferId> outputs;
  std::vector<WeightIndex> weights;
  OpAttributes attributes;
};

}  // namespace lamella
