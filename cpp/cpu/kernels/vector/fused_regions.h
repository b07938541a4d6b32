// Deep-Fusion's regions 1, 3 and 4 (the paper's III-B and III-D): what stands before and after a linear, in one kernel
// with it.
//
// Tokens go through in tiles. Every worker normalises the whole tile into its own scratch, or all share that work
// (tile_inputs.h), multiplies it by its share of the weight rows, and finishes bias, RoPE, activation, gating or residual on the fp32 results before it stores them
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

/// row += bias, where there is one.
LAMELLA_INLINE void add_bias_to(float* row, const float* bias, std::int64_t width) {
  if (bias == nullptr) return;
  each_vector(width, [&](std::int64_t i, int count)
                         LAMELLA_BODY { store(row + i, load(row + i, count) + load(bias + i, count), count); });
}

/// One head of the QKV projections: the unit that workers share in region 1, so that RoPE's pairs meet in one tile.
struct ProjectedHead {
  enum Target { to_query, to_key, to_value } target;
  std::int64_t head;
  const PackedMatrix* weight;
  const float* bias;
};

/// Unit `index` of heads query heads, then kv_heads key heads, then kv_heads value heads.
LAMELLA_INLINE ProjectedHead projected_head(const NormQkvArgs& a, std::int64_t index) {
  ProjectedHead unit{ProjectedHead::to_query, index, nullptr, nullptr};
  const WeightAndBias* source = &a.query;
  if (index >= a.heads + a.kv.kv_heads) {
    unit.target = ProjectedHead::to_value;
    unit.head = index - a.heads - a.kv.kv_heads;
    source = &a.value;
  } else if (index >= a.heads) {
    unit.target = ProjectedHead::to_key;
    unit.head = index - a.heads;
    source = &a.key;
  }
  unit.weight = &source->weight;
  if (source->bias != nullptr) unit.bias = source->bias + unit.head * a.kv.head_dim;
  return unit;
}

/// Bias and RoPE on a head's rows, `stride` apart, then to q or to the cache.
template <typename T>
LAMELLA_INLINE void finish_head(const NormQkvArgs& a, const ProjectedHead& unit, float* rows, std::int64_t stride,
                                std::int64_t first, std::int64_t tokens) {
  const std::int64_t dim = a.kv.head_dim;
  for (std::int64_t i = 0; i < tokens; ++i) {
    float* row = rows + i * stride;
    add_bias_to(row, unit.bias, dim);
    if (a.angles != nullptr && unit.target != unit.to_value)
      rotate(row, a.angles + (first + i) * a.rotary_dim, a.rotary_dim);
    if (unit.target == unit.to_query)
      store_row(static_cast<T*>(a.q) + ((first + i) * a.heads + unit.head) * dim, row, dim);
  }
  if (unit.target == unit.to_query) return;
  each_slot(a.kv, first, first + tokens, [&](std::int64_t t, std::int64_t block, std::int64_t slot) LAMELLA_BODY {
    write_kv_row(a.kv, block, unit.target == unit.to_value ? 1 : 0, unit.head, slot, rows + (t - first) * stride);
  });
}

/// Heads that do not begin or end with a tile of outputs share one with their neighbours: it is computed for both.
template <typename T>
void norm_qkv(const NormQkvArgs& a, const Worker& worker) {
  const std::int64_t dim = a.kv.head_dim, stride = head_stride(dim);
  const LinearTokens all_tokens = LinearTokens::of(a);
  const RowSource<T> source{static_cast<const T*>(a.x), {a.norm, a.norm_weight, a.norm_bias, a.eps, a.width}};
  each_input_tile<T>(source, all_tokens, a.query.weight.format, worker,
                     [&](TileInputs<T>& inputs, std::int64_t first, std::int64_t tokens, Carver scratch) LAMELLA_BODY {
                       float* results = scratch.take<float>(tokens * stride);
                       Pieces heads(a.heads + 2 * a.kv.kv_heads, 1, all_tokens, worker);
                       for (Range piece; heads.next(piece);) {
                         const ProjectedHead unit = projected_head(a, piece.begin);
                         const std::int64_t begin = unit.head * dim / tile_outputs,
                                            end = ((unit.head + 1) * dim + tile_outputs - 1) / tile_outputs;
                         multiply_tiles<T>(inputs.of(unit.weight->format), *unit.weight, begin, end, results, stride);
                         finish_head<T>(a, unit, results + (unit.head * dim - begin * tile_outputs), stride, first,
                                        tokens);
                       }
                     });
}

/// The two linears of a gated MLP, or the one of a plain one.
struct UpLinears {
  const WeightAndBias& up;
  const WeightAndBias& gate;  // no data: not gated
  Activation activation;
};

/// Some tiles of both, a panel at most: `outputs` outputs from `o` on of `tokens` rows, to `y` and rows behind it.
template <typename T>
LAMELLA_INLINE void up_panel(TileInputs<T>& inputs, const UpLinears& linears, const Range& tiles, std::int64_t o,
                             std::int64_t outputs, std::int64_t tokens, T* y, Carver room) {
  const auto& [up, gate, kind_of_activation] = linears;
  const bool gated = gate.weight.data != nullptr;
  float *up_rows = room.take<float>(tokens * panel_outputs), *gate_rows = room.take<float>(tokens * panel_outputs);
  multiply_tiles<T>(inputs.of(up.weight.format), up.weight, tiles.begin, tiles.end, up_rows, panel_outputs);
  if (gated)
    multiply_tiles<T>(inputs.of(gate.weight.format), gate.weight, tiles.begin, tiles.end, gate_rows, panel_outputs);
  for (std::int64_t i = 0; i < tokens; ++i) {
    add_bias_to(up_rows + i * panel_outputs, up.bias == nullptr ? nullptr : up.bias + o, outputs);
    if (gated) add_bias_to(gate_rows + i * panel_outputs, gate.bias == nullptr ? nullptr : gate.bias + o, outputs);
  }
  with_activation(kind_of_activation, [&](auto kind) LAMELLA_BODY {
    activate_rows<decltype(kind)::value, float, T>(gated ? gate_rows : up_rows, gated ? up_rows : nullptr,
                                                   panel_outputs, y, up.weight.outputs, tokens, outputs);
  });
}

template <typename T>
void norm_mlp_up(const NormMlpUpArgs& a, const Worker& worker) {
  const std::int64_t width = a.up.weight.inputs, all_outputs = a.up.weight.outputs;
  const LinearTokens all_tokens = LinearTokens::of(a);
  const RowSource<T> source{static_cast<const T*>(a.x), {a.norm, a.norm_weight, a.norm_bias, a.eps, width}};
  each_input_tile<T>(source, all_tokens, a.up.weight.format, worker,
                     [&](TileInputs<T>& inputs, std::int64_t first, std::int64_t tokens, Carver scratch) LAMELLA_BODY {
                       each_panel(all_outputs, all_tokens, worker,
                                  [&](std::int64_t begin, std::int64_t end, std::int64_t o, std::int64_t outputs) {
                                    up_panel<T>(inputs, {a.up, a.gate, a.activation}, {begin, end}, o, outputs, tokens,
                                                static_cast<T*>(a.y) + first * all_outputs + o, scratch);
                                  });
                     });
}

template <typename T>
void output_residual(const OutputResidualArgs& a, const Worker& worker) {
  multiply_all<T>(a.x, a.output.weight, LinearTokens::of(a), worker,
                  [&](float* row, std::int64_t t, std::int64_t o, std::int64_t outputs) LAMELLA_BODY {
                    const std::int64_t at = t * a.output.weight.outputs + o;
                    add_bias_to(row, a.output.bias == nullptr ? nullptr : a.output.bias + o, outputs);
                    each_vector(outputs, [&](std::int64_t i, int count) LAMELLA_BODY {
                      const F32 sum = load(row + i, count) + load(static_cast<const T*>(a.residual) + at + i, count);
                      store(static_cast<T*>(a.y) + at + i, sum, count);
                    });
                  });
}

template <typename T>
void bias_residual(const BiasResidualArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    each_vector(a.width, [&](std::int64_t i, int count) LAMELLA_BODY {
      F32 sum = load(a.x + t * a.width + i, count);
      for (const float* bias : a.biases)
        if (bias != nullptr) sum += load(bias + i, count);
      sum += load(static_cast<const T*>(a.residual) + t * a.width + i, count);
      store(static_cast<T*>(a.y) + t * a.width + i, sum, count);
    });
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
