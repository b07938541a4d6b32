// Deep-Fusion (the paper's III-B and III-D): the four regions of a transformer layer become one op each, and so does a
// head that only looks for the best token.
#pragma once

#include <array>
#include <span>

#include "plan/plan.h"

namespace lamella {

inline constexpr std::array fusable_regions = {Region::qkv,  Region::attention, Region::mlp_up,  Region::output,
                                               Region::head, Region::route,     Region::experts, Region::combine};

/// Replaces every run of ops of one (layer, region) by the region's fused op:
///   qkv        norm?, Q/K/V linears, biases, RoPE, KV write           -> norm_qkv
///   attention  split heads, attention, merge heads                    -> layout_attention
///   mlp_up     norm?, up (and gate) linear, biases, activation        -> norm_mlp_up
///   output     output linear, bias, residual                          -> output_residual
///              biases, residual, behind a sum over ranks              -> bias_residual
///   head       linear, bias, best token                               -> greedy_head
///   route      norm?, router (and shared gate) linear, route, dispatch -> norm_route
///   experts    up (and gate) linear of the experts, activation        -> expert_up
///   combine    weighted sum of a token's experts, residual            -> combine_residual
/// Only `regions` are fused, so that each can be measured by itself. Requires: a verified plan whose runs have exactly
/// those ops; a run with anything else in it (a collective, or norms of queries and keys, say) is left as it is. Guarantees: the same outputs;
/// buffers that only connected a run's ops are gone.
[[nodiscard]] Plan deep_fusion(const Plan& plan, std::span<const Region> regions = fusable_regions);

}  // namespace lamella
