// All vector kernels of one instruction set. A set_*.cpp names the set (LAMELLA_KERNEL_NAMESPACE), includes its target
// header and then this file; CMake compiles it with the set's flags.
#pragma once

#include "cpu/kernels/vector/kernel_sets.h"
// The target header and the choice of dot products stand before these.
#include "cpu/kernels/vector/attention.h"
#include "cpu/kernels/vector/experts.h"
#include "cpu/kernels/vector/fused_regions.h"
#include "cpu/kernels/vector/greedy_head.h"
#include "cpu/kernels/vector/logit_kernels.h"
#include "cpu/kernels/vector/probes.h"
#include "cpu/kernels/vector/rows.h"

#define LAMELLA_TEXT_OF(name) #name
#define LAMELLA_TEXT(name) LAMELLA_TEXT_OF(name)

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

template <typename T>
constexpr KernelTable kernels_of(DataType dtype) {
  return {.name = LAMELLA_TEXT(LAMELLA_KERNEL_NAMESPACE),
          .dtype = dtype,
          .norm = norm<T>,
          .embed = embed<T>,
          .linear = linear<T>,
          .add_bias = add_bias<T>,
          .rope = rope<T>,
          .kv_write = kv_write<T>,
          .split_heads = split_heads<T>,
          .merge_heads = merge_heads<T>,
          .attention = attention<T>,
          .activate = activate<T>,
          .residual = residual<T>,
          .gather_rows = gather_rows<T>,
          .mean_pool = mean_pool<T>,
          .best_token = best_token,
          .norm_qkv = norm_qkv<T>,
          .layout_attention = layout_attention<T>,
          .norm_mlp_up = norm_mlp_up<T>,
          .output_residual = output_residual<T>,
          .bias_residual = bias_residual<T>,
          .greedy_head = greedy_head<T>,
          .route = route,
          .dispatch = dispatch<T>,
          .expert_linear = expert_linear<T>,
          .combine = combine<T>,
          .norm_route = norm_route<T>,
          .expert_up = expert_up<T>,
          .combine_residual = combine<T>,
          .linear_way = linear_way<T>,
          .attention_arithmetic = attention_arithmetic<T>};
}

}  // namespace

// NOLINTNEXTLINE(bugprone-throwing-static-initialization): constinit, so nothing runs and nothing throws
constinit const VectorSet vector_set = {
    .f32 = kernels_of<float>(DataType::f32),
    .f16 = kernels_of<Fp16>(DataType::f16),
    .bf16 = kernels_of<Bf16>(DataType::bf16),
    .logits = {.find_maxima = find_maxima, .weigh = weigh, .find_lowest = find_lowest, .find_places = find_places},
    .probes = {.read_loops = read_loops,
               .f32 = {chain_multiply_adds, std::int64_t{2} * peak_chains * lanes},
               .bf16 = {chain_bf16_dots<F32>, std::int64_t{multiplies_bf16_pairs ? 4 : 2} * peak_chains * lanes},
               .int8 = {chain_int8_dots, std::int64_t{8} * peak_chains * lanes}},
};

}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
