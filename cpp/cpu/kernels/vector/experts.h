// Mixtures of experts (the paper's V-C): tables in place of one-hot tensors, copies in place of sparse einsums.
//
// A token's choices stand in a table [token][choice]. Workers count the choices of their own tokens by expert; a scan over
// experts, and over workers within each, tells everyone where its rows begin in the order by expert, so that all write their
// tokens' rows at once, of an expert in the tokens' order. The linears of experts are those of dense layers, each expert's
// over its own rows; experts without rows cost nothing.
#pragma once

#include "cpu/kernels/vector/fused_regions.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

// ---- which experts ---------------------------------------------------------------------------------------------------

/// The `top_k` largest keys, the lower number first among equals, and their numbers. A NaN is passed by where others are.
LAMELLA_INLINE void choose(const float* keys, std::int64_t count, std::int64_t top_k, std::int32_t* chosen,
                           float* largest) {
  std::int64_t found = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    const float key = keys[e];
    if (found == top_k && !(key > largest[top_k - 1])) continue;
    std::int64_t at = found < top_k ? found++ : top_k - 1;
    for (; at > 0 && key > largest[at - 1]; --at) {
      largest[at] = largest[at - 1];
      chosen[at] = chosen[at - 1];
    }
    largest[at] = key;
    chosen[at] = static_cast<std::int32_t>(e);
  }
}

LAMELLA_INLINE F32 sigmoid(F32 x) { return 1.0F / (1.0F + exponential(-x)); }

/// The sum of some of a token's numbers: function(row + i, count) of each vector.
template <typename Function>
LAMELLA_INLINE float sum_of(std::int64_t count, Function function) {
  return sum_row(count, [&](std::int64_t i, int n) LAMELLA_BODY { return first_lanes(function(i, n), n, F32{}); });
}

/// One token's choices and their weights (RouterKind). `room` has space for two rows of logits.
[[gnu::noinline]] void route_token(const Routing& routing, const float* logits, std::int32_t* chosen, float* weights,
                                   float* room) {
  const std::int64_t experts = routing.experts, top_k = routing.top_k;
  if (routing.kind == RouterKind::sigmoid_with_bias) {
    float *scores = room, *keys = room + experts;
    each_vector(experts, [&](std::int64_t i, int count) LAMELLA_BODY {
      const F32 score = sigmoid(load(logits + i, count));
      store(scores + i, score, count);
      store(keys + i, score + load(routing.bias + i, count), count);
    });
    choose(keys, experts, top_k, chosen, weights);
    for (std::int64_t j = 0; j < top_k; ++j) weights[j] = scores[chosen[j]];
    const float sum =
        sum_of(top_k, [&](std::int64_t i, int count) LAMELLA_BODY { return load(weights + i, count); }) + least_sum;
    each_vector(top_k, [&](std::int64_t i, int count)
                           LAMELLA_BODY { store(weights + i, load(weights + i, count) / sum * routing.scale, count); });
    return;
  }
  choose(logits, experts, top_k, chosen, weights);
  const float top = weights[0];
  const bool all = routing.kind != RouterKind::softmax_top_k_renormalised;
  const float* summed = all ? logits : weights;
  const float sum = sum_of(all ? experts : top_k, [&](std::int64_t i, int count) LAMELLA_BODY {
    return exponential(load(summed + i, count) - top);
  });
  each_vector(top_k, [&](std::int64_t i, int count) LAMELLA_BODY {
    store(weights + i, exponential(load(weights + i, count) - top) / sum, count);
  });
}

void route(const RouteArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  const Routing& routing = a.routing;
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    route_token(routing, a.logits + t * routing.experts, a.chosen + t * routing.top_k, a.weights + t * routing.top_k,
                reinterpret_cast<float*>(worker.scratch.data));
}

// ---- where their rows go ---------------------------------------------------------------------------------------------

/// What workers share while tokens are routed, at the end of their memory (contracts.h: route_room).
struct RouteRoom {
  std::int32_t* counts;  // [worker][expert]: choices of the worker's tokens
  std::int32_t* chosen;  // [token][choice]
  float* logits;  // [token][expert]

  LAMELLA_INLINE RouteRoom(const Routing& routing, std::int64_t tokens, const Worker& worker)
      : counts(reinterpret_cast<std::int32_t*>(worker.shared.data + worker.shared.size) -
               worker.count * routing.experts),
        chosen(counts - tokens * routing.top_k),
        logits(reinterpret_cast<float*>(chosen) - tokens * routing.experts) {}
};

LAMELLA_INLINE void count_choices(const Routing& routing, const std::int32_t* chosen, const Range& tokens,
                                  std::int32_t* counts) {
  for (std::int64_t e = 0; e < routing.experts; ++e) counts[e] = 0;
  for (std::int64_t i = tokens.begin * routing.top_k; i < tokens.end * routing.top_k; ++i) ++counts[chosen[i]];
}

/// Writes the worker's part of the inverse table, and copies the rows of its tokens: row(t) of token t, `bytes` each.
template <typename Row>
LAMELLA_INLINE void scatter_rows(const Routing& routing, const std::int32_t* chosen, const std::int32_t* counts,
                                 const Range& tokens, const Placed& to, std::int64_t bytes, std::int32_t* next,
                                 const Worker& worker, Row row) {
  std::int32_t begin = 0;
  for (std::int64_t e = 0; e < routing.experts; ++e) {
    if (worker.index == 0) to.offsets[e] = begin;
    for (int w = 0; w < worker.count; ++w) {
      if (w == worker.index) next[e] = begin;
      begin += counts[w * routing.experts + e];
    }
  }
  if (worker.index == 0) to.offsets[routing.experts] = begin;
  for (std::int64_t t = tokens.begin; t < tokens.end; ++t) {
    const void* from = row(t);
    for (std::int64_t i = t * routing.top_k; i < (t + 1) * routing.top_k; ++i) {
      const std::int32_t place = next[chosen[i]]++;
      to.places[i] = place;
      __builtin_memcpy(static_cast<std::byte*>(to.rows) + place * bytes, from, static_cast<std::size_t>(bytes));
    }
  }
}

template <typename T>
void dispatch(const DispatchArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  const RouteRoom room(a.routing, a.tokens, worker);
  if (worker.phase == 0)
    return count_choices(a.routing, a.chosen, mine, room.counts + worker.index * a.routing.experts);
  const T* x = static_cast<const T*>(a.x);
  scatter_rows(a.routing, a.chosen, room.counts, mine, a.to, a.width * std::int64_t{sizeof(T)},
               reinterpret_cast<std::int32_t*>(worker.scratch.data), worker,
               [&](std::int64_t t) LAMELLA_BODY { return x + t * a.width; });
}

/// Norm, router, choice and dispatch: the logits and the table of choices never leave the workers' memory.
template <typename T>
void norm_route(const NormRouteArgs& a, const Worker& worker) {
  const std::int64_t width = a.router.inputs, experts = a.routing.experts, top_k = a.routing.top_k;
  const RouteRoom room(a.routing, a.tokens, worker);
  const RowSource<T> source{static_cast<const T*>(a.x), {a.norm, a.norm_weight, a.norm_bias, a.eps, width}};
  const int choice = input_phases(a.tokens, a.shared_inputs);
  if (worker.phase < choice) {
    const LinearTokens all_tokens = LinearTokens::of(a);
    return each_input_tile<T>(
        source, all_tokens, a.router.format, worker,
        [&](TileInputs<T>& inputs, std::int64_t first, std::int64_t tokens, Carver scratch) LAMELLA_BODY {
          float* results = scratch.take<float>(tokens * panel_outputs);
          each_panel(experts, all_tokens, worker,
                     [&](std::int64_t begin, std::int64_t end, std::int64_t o, std::int64_t outputs) LAMELLA_BODY {
                       multiply_tiles<T>(inputs.of(a.router.format), a.router, begin, end, results, panel_outputs);
                       for (std::int64_t i = 0; i < tokens; ++i)
                         store_row(room.logits + (first + i) * experts + o, results + i * panel_outputs, outputs);
                     });
          if (a.shared_router.data == nullptr || worker.index != worker.count - 1) return;
          multiply_tiles<T>(inputs.of(a.shared_router.format), a.shared_router, 0, 1, results, panel_outputs);
          for (std::int64_t i = 0; i < tokens; ++i) a.shared_gate[first + i] = results[i * panel_outputs];
        });
  }
  const Range mine = share(a.tokens, worker);
  if (worker.phase == choice) {
    for (std::int64_t t = mine.begin; t < mine.end; ++t)
      route_token(a.routing, room.logits + t * experts, room.chosen + t * top_k, a.weights + t * top_k,
                  reinterpret_cast<float*>(worker.scratch.data));
    return count_choices(a.routing, room.chosen, mine, room.counts + worker.index * experts);
  }
  Carver scratch{worker.scratch.data};
  T* normed = scratch.take<T>(width);
  std::int32_t* next = scratch.take<std::int32_t>(experts);
  scatter_rows(a.routing, room.chosen, room.counts, mine, a.to, width * std::int64_t{sizeof(T)}, next, worker,
               [&](std::int64_t t) LAMELLA_BODY { return source.row(t, normed); });
}

// ---- experts ---------------------------------------------------------------------------------------------------------

/// Reading an expert's weights counts as much as multiplying them with so many rows, when workers share the experts out.
constexpr std::int64_t rows_of_a_read = 8;

/// Calls body(expert, first row, end, first tile, end) for the worker's part of all experts that have rows: as much work
/// as the others have, of few experts side by side, so that few workers make the same inputs.
template <typename Body>
LAMELLA_INLINE void each_expert(const Experts& experts, std::int64_t outputs, const Worker& worker, Body body) {
  const std::int64_t tiles = (outputs + tile_outputs - 1) / tile_outputs;
  const auto cost = [&](std::int64_t e) LAMELLA_BODY {
    const std::int64_t rows = experts.offsets[e + 1] - experts.offsets[e];
    return rows == 0 ? 0 : rows + rows_of_a_read;  // of a tile
  };
  std::int64_t all = 0;
  for (std::int64_t e = 0; e < experts.count; ++e) all += cost(e) * tiles;
  const Range mine = share(all, worker);
  for (std::int64_t e = 0, at = 0; e < experts.count && at < mine.end; ++e) {
    const std::int64_t each = cost(e);
    if (each == 0) continue;
    // A tile belongs to the worker in whose part it begins.
    const std::int64_t begin = larger((mine.begin - at + each - 1) / each, 0),
                       end = smaller((mine.end - at + each - 1) / each, tiles);
    if (mine.begin < at + each * tiles && begin < end) body(e, experts.offsets[e], experts.offsets[e + 1], begin, end);
    at += each * tiles;
  }
}

/// Calls body(inputs, first row, rows, expert, first tile, end, first output, outputs, room) for the worker's part, a panel or
/// less of one expert and a tile of its rows at a time.
template <typename T, typename Body>
LAMELLA_INLINE void each_expert_panel(const Experts& experts, const void* x, std::int64_t width,
                                      std::int64_t all_outputs, bool sbi_gemm, const Worker& worker, Body body) {
  Carver memory{worker.scratch.data};
  const RowRoom<T> row(width, memory);
  const InputTile<T> tiles[2] = {{token_tile, width, memory}, {token_tile, width, memory}};
  each_expert(experts, all_outputs, worker,
              [&](std::int64_t expert, std::int64_t first_row, std::int64_t end_row, std::int64_t first_tile,
                  std::int64_t end_tile) LAMELLA_BODY {
                for (std::int64_t first = first_row; first < end_row; first += token_tile) {
                  const std::int64_t rows = smaller(token_tile, end_row - first);
                  TileInputs<T> inputs(plain_rows<T>(x, width), first, rows, sbi_gemm, tiles, row);
                  for (std::int64_t begin = first_tile; begin < end_tile;) {
                    const std::int64_t end = smaller(end_tile, (begin / panel_tiles + 1) * panel_tiles),
                                       o = begin * tile_outputs;
                    body(inputs, first, rows, expert, begin, end, o, smaller(end * tile_outputs, all_outputs) - o,
                         memory);
                    begin = end;
                  }
                }
              });
}

template <typename T, typename Y>
LAMELLA_INLINE void expert_linear_into(const ExpertLinearArgs& a, const Worker& worker) {
  const std::int64_t width = a.linears[0].weight.inputs, all_outputs = a.linears[0].weight.outputs;
  each_expert_panel<T>(a.experts, a.x, width, all_outputs, a.sbi_gemm, worker,
                       [&](TileInputs<T>& inputs, std::int64_t first, std::int64_t rows, std::int64_t expert,
                           std::int64_t begin, std::int64_t end, std::int64_t o, std::int64_t outputs, Carver memory) {
                         const WeightAndBias& own = a.linears[expert];
                         float* results = memory.take<float>(rows * panel_outputs);
                         multiply_tiles<T>(inputs.of(own.weight.format), own.weight, begin, end, results,
                                           panel_outputs);
                         for (std::int64_t i = 0; i < rows; ++i) {
                           float* row = results + i * panel_outputs;
                           add_bias_to(row, own.bias == nullptr ? nullptr : own.bias + o, outputs);
                           store_row(static_cast<Y*>(a.y) + (first + i) * all_outputs + o, row, outputs);
                         }
                       });
}

template <typename T>
void expert_linear(const ExpertLinearArgs& a, const Worker& worker) {
  if (a.y_f32) expert_linear_into<T, float>(a, worker);
  else expert_linear_into<T, T>(a, worker);
}

template <typename T>
void expert_up(const ExpertUpArgs& a, const Worker& worker) {
  const std::int64_t width = a.ups[0].weight.inputs, all_outputs = a.ups[0].weight.outputs;
  each_expert_panel<T>(a.experts, a.x, width, all_outputs, a.sbi_gemm, worker,
                       [&](TileInputs<T>& inputs, std::int64_t first, std::int64_t rows, std::int64_t expert,
                           std::int64_t begin, std::int64_t end, std::int64_t o, std::int64_t outputs, Carver memory) {
                         const WeightAndBias none{};
                         up_panel<T>(inputs, {a.ups[expert], a.gates == nullptr ? none : a.gates[expert], a.activation},
                                     {begin, end}, o, outputs, rows, static_cast<T*>(a.y) + first * all_outputs + o,
                                     memory);
                       });
}

// ---- and back --------------------------------------------------------------------------------------------------------

template <typename T, typename Y>
LAMELLA_INLINE void combine_into(const CombineArgs& a, const Worker& worker) {
  constexpr std::int64_t chunk = 256;  // columns: one token's row is work for several workers
  const std::int64_t chunks = (a.width + chunk - 1) / chunk;
  const Range mine = share(a.tokens * chunks, worker);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t t = unit / chunks, begin = unit % chunks * chunk, at = t * a.width + begin;
    const std::int32_t* places = a.places + t * a.top_k;
    const float* weights = a.weights + t * a.top_k;
    const F32 gate = a.shared_gate == nullptr ? splat(1.0F) : sigmoid(splat(a.shared_gate[t]));
    each_vector(smaller(chunk, a.width - begin), [&](std::int64_t i, int count) LAMELLA_BODY {
      F32 sum = {};
      for (std::int64_t j = 0; j < a.top_k; ++j)
        sum = multiply_add(splat(weights[j]), load(a.rows + places[j] * a.width + begin + i, count), sum);
      if (a.shared != nullptr) sum += gate * load(a.shared + at + i, count);
      if (a.residual != nullptr) sum += load(static_cast<const T*>(a.residual) + at + i, count);
      store(static_cast<Y*>(a.y) + at + i, sum, count);
    });
  }
}

template <typename T>
void combine(const CombineArgs& a, const Worker& worker) {
  if (a.y_f32) combine_into<T, float>(a, worker);
  else combine_into<T, T>(a, worker);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
