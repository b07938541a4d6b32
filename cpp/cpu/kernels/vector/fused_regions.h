// Deep-Fusion's regions 1, 3 and 4 (the paper's III-B and III-D): what stands before and after a linear, in one kernel
// with it.
//
// Tokens go through in tiles of fused_token_tile. Every worker normalises the whole tile into its own scratch (the
// paper broadcasts the input and repeats the norm on every SM: no worker waits for another), multiplies it by its share
// of the weight rows, and finishes bias, RoPE, activation, gating or residual on the fp32 results before it stores them
// once. In fp32 the bits are those of the separate kernels, because both run the same functions in the same order; in
// bf16 the roundings in between are gone.
#pragma once

#include "cpu/kernels/vector/activation.h"
#include "cpu/kernels/vector/kv_cache.h"
#include "cpu/kernels/vector/linear.h"
#include "cpu/kernels/vector/norm.h"
#include "cpu/kernels/vector/rope.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Bytes at the start of a worker's scratch that hold a tile of normalised rows.
template <typename T>
LAMELLA_INLINE std::int64_t normalised_bytes(std::int64_t width) {
  return round_up(fused_token_tile * width * static_cast<std::int64_t>(sizeof(T)), 64);
}

/// Rows [t, t + tokens) after the norm: in scratch, or x itself where there is no norm.
template <typename T>
LAMELLA_INLINE const T* normalised_tile(const T* x, const RowNorm& norm, std::int64_t tokens, const Worker& worker) {
  if (norm.kind == NormKind::none) return x;
  T* rows = reinterpret_cast<T*>(worker.scratch.data);
  for (std::int64_t i = 0; i < tokens; ++i) normalise_row(x + i * norm.width, rows + i * norm.width, norm);
  return rows;
}

/// row += bias, where there is one.
LAMELLA_INLINE void add_bias_to(float* row, const float* bias, std::int64_t width) {
  if (bias == nullptr) return;
  each_vector(width, [&](std::int64_t i, int count)
                         LAMELLA_BODY { store(row + i, load(row + i, count) + load(bias + i, count), count); });
}

template <typename T>
LAMELLA_INLINE void store_row(T* to, const float* row, std::int64_t width) {
  each_vector(width, [&](std::int64_t i, int count) LAMELLA_BODY { store(to + i, load(row + i, count), count); });
}

/// One head of the QKV projections: the unit that workers share in region 1, so that RoPE's pairs meet in one tile.
template <typename T>
struct ProjectedHead {
  enum Target { to_query, to_key, to_value } target;
  std::int64_t head;
  const T* weight;
  const float* bias;
};

/// Unit `index` of heads query heads, then kv_heads key heads, then kv_heads value heads.
template <typename T>
LAMELLA_INLINE ProjectedHead<T> projected_head(const NormQkvArgs& a, std::int64_t index) {
  using Head = ProjectedHead<T>;
  Head unit{Head::to_query, index, nullptr, nullptr};
  const WeightAndBias* source = &a.query;
  if (index >= a.heads + a.kv.kv_heads) {
    unit.target = Head::to_value;
    unit.head = index - a.heads - a.kv.kv_heads;
    source = &a.value;
  } else if (index >= a.heads) {
    unit.target = Head::to_key;
    unit.head = index - a.heads;
    source = &a.key;
  }
  unit.weight = static_cast<const T*>(source->weight) + unit.head * a.kv.head_dim * a.width;
  if (source->bias != nullptr) unit.bias = source->bias + unit.head * a.kv.head_dim;
  return unit;
}

/// Bias and RoPE on a head's rows of the tile, then to q or to the cache.
template <typename T>
LAMELLA_INLINE void finish_head(const NormQkvArgs& a, const ProjectedHead<T>& unit, float* tile, std::int64_t first,
                                std::int64_t tokens) {
  const std::int64_t dim = a.kv.head_dim;
  for (std::int64_t i = 0; i < tokens; ++i) {
    add_bias_to(tile + i * dim, unit.bias, dim);
    if (a.angles != nullptr && unit.target != unit.to_value)
      rotate(tile + i * dim, a.angles + (first + i) * a.rotary_dim, a.rotary_dim);
    if (unit.target == unit.to_query)
      store_row(static_cast<T*>(a.q) + ((first + i) * a.heads + unit.head) * dim, tile + i * dim, dim);
  }
  if (unit.target == unit.to_query) return;
  each_slot(a.kv, first, first + tokens, [&](std::int64_t t, std::int64_t block, std::int64_t slot) LAMELLA_BODY {
    store_row(cache_row<T>(a.kv, block, unit.target == unit.to_value ? 1 : 0, unit.head, slot),
              tile + (t - first) * dim, dim);
  });
}

template <typename T>
void norm_qkv(const NormQkvArgs& a, const Worker& worker) {
  const std::int64_t dim = a.kv.head_dim;
  const Range mine = share(a.heads + 2 * a.kv.kv_heads, worker);
  if (mine.begin == mine.end) return;
  const RowNorm row_norm{a.norm, a.norm_weight, a.norm_bias, a.eps, a.width};
  float* tile = reinterpret_cast<float*>(worker.scratch.data + normalised_bytes<T>(a.width));
  for (std::int64_t first = 0; first < a.tokens; first += fused_token_tile) {
    const std::int64_t tokens = smaller(fused_token_tile, a.tokens - first);
    const T* rows = normalised_tile(static_cast<const T*>(a.x) + first * a.width, row_norm, tokens, worker);
    for (std::int64_t u = mine.begin; u < mine.end; ++u) {
      const ProjectedHead<T> unit = projected_head<T>(a, u);
      const T* next = projected_head<T>(a, u + 1 < mine.end ? u + 1 : u).weight;
      multiply<T>({rows, a.width, a.width}, unit.weight, tokens, dim, tile, dim, next);
      finish_head(a, unit, tile, first, tokens);
    }
  }
}

template <typename T>
void norm_mlp_up(const NormMlpUpArgs& a, const Worker& worker) {
  const Range mine = share_outputs(a.outputs, worker);
  if (mine.begin >= mine.end) return;
  const RowNorm row_norm{a.norm, a.norm_weight, a.norm_bias, a.eps, a.width};
  const T* up_weight = static_cast<const T*>(a.up.weight);
  const T* gate_weight = static_cast<const T*>(a.gate.weight);
  alignas(64) float up[product_tokens * block_outputs], gate[product_tokens * block_outputs];
  for (std::int64_t first = 0; first < a.tokens; first += fused_token_tile) {
    const std::int64_t tokens = smaller(fused_token_tile, a.tokens - first);
    const Product<T> rows{normalised_tile(static_cast<const T*>(a.x) + first * a.width, row_norm, tokens, worker),
                          a.width, a.width};
    for (std::int64_t o = mine.begin; o < mine.end; o += block_outputs) {
      const std::int64_t outputs = smaller(block_outputs, mine.end - o),
                         following = o + outputs < mine.end ? o + outputs : o;
      const T* next = up_weight + following * a.width;
      multiply(rows, up_weight + o * a.width, tokens, outputs, up, block_outputs,
               gate_weight != nullptr ? gate_weight + o * a.width : next);
      if (gate_weight != nullptr) multiply(rows, gate_weight + o * a.width, tokens, outputs, gate, block_outputs, next);
      with_activation(a.activation, [&](auto kind) LAMELLA_BODY {
        for (std::int64_t i = 0; i < tokens; ++i) {
          float *up_row = up + i * block_outputs, *gate_row = gate + i * block_outputs;
          T* y = static_cast<T*>(a.y) + (first + i) * a.outputs + o;
          add_bias_to(up_row, a.up.bias == nullptr ? nullptr : a.up.bias + o, outputs);
          if (gate_weight == nullptr) {
            activate_row<decltype(kind)::value, float, T>(up_row, nullptr, y, outputs);
          } else {
            add_bias_to(gate_row, a.gate.bias == nullptr ? nullptr : a.gate.bias + o, outputs);
            activate_row<decltype(kind)::value, float, T>(gate_row, up_row, y, outputs);
          }
        }
      });
    }
  }
}

/// No norm, so nothing is repeated: weights come from memory once, as in the plain linear.
template <typename T>
void output_residual(const OutputResidualArgs& a, const Worker& worker) {
  const T* x = static_cast<const T*>(a.x);
  const T* weight = static_cast<const T*>(a.output.weight);
  const Range mine = share_outputs(a.outputs, worker);
  multiply_blocks(x, weight, a.tokens, a.inputs, mine,
                  [&](float* row, std::int64_t t, std::int64_t o, std::int64_t outputs) LAMELLA_BODY {
                    const std::int64_t at = t * a.outputs + o;
                    add_bias_to(row, a.output.bias == nullptr ? nullptr : a.output.bias + o, outputs);
                    each_vector(outputs, [&](std::int64_t i, int count) LAMELLA_BODY {
                      const F32 sum = load(row + i, count) + load(static_cast<const T*>(a.residual) + at + i, count);
                      store(static_cast<T*>(a.y) + at + i, sum, count);
                    });
                  });
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
