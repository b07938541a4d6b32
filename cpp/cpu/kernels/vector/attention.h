// Attention over the KV cache, for prompts and decoding alike.
//
// A query's context is cut at multiples of attention_part_tokens. Each part gives its largest score, the sum of its
// exponentials and the weighted sum of its values; parts are merged in index order. With a window, the first part begins
// where the window does. Up to four queries that read the
// same K and V (query heads of one group, neighbouring tokens of one sequence) share their loads; nothing that a query
// computes depends on its company.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/functions.h"
#include "cpu/kernels/vector/row_product.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

constexpr int max_queries = 4;

/// Queries of one tile: rows of one sequence and one KV head.
template <typename T>
struct QueryTile {
  int count = 0;
  const T* query[max_queries];
  T* y[max_queries];
  std::int64_t begin[max_queries], end[max_queries];  // sees positions [begin, end)
};

/// The running result of a query, unnormalised: sum of exp(score - largest) and of the values so weighted.
struct Running {
  float largest, sum;
};

/// A worker's scratch: the tile's queries side by side, and their value sums for the part at hand and for all parts so
/// far.
template <typename T>
struct AttentionScratch {
  T* queries;  // [max_queries][head_dim]
  float* part;  // [max_queries][padded]
  float* merged;  // [max_queries][padded]
  std::int64_t padded;

  LAMELLA_INLINE AttentionScratch(const Worker& worker, std::int64_t head_dim) : padded(round_up(head_dim, 16)) {
    part = reinterpret_cast<float*>(worker.scratch.data);
    merged = part + max_queries * padded;
    queries = reinterpret_cast<T*>(merged + max_queries * padded);
  }
};

/// scores[q][position - part] = query . key for all positions of [begin, end), block by block of the cache; `begin` is
/// a block's first.
template <typename T>
LAMELLA_INLINE void part_scores(const KvLayout& kv, const std::int32_t* blocks, std::int64_t kv_head, const T* queries,
                                int count, std::int64_t part, std::int64_t begin, std::int64_t end, float* scores) {
  for (std::int64_t at = begin; at < end; at += kv_block_tokens) {
    const T* keys = static_cast<const T*>(kv.cache) + kv.offset(blocks[at / kv_block_tokens], 0, kv_head);
    multiply_rows(queries, count, keys, smaller(kv_block_tokens, end - at), kv.head_dim, scores + (at - part),
                  attention_part_tokens);
  }
}

/// Turns `count` raw scores into exp(scale * score - largest).
[[gnu::noinline]] Running exponentiate(float* scores, std::int64_t count, float scale) {
  F32 largest = splat(-__builtin_inff());
  each_vector(count, [&](std::int64_t i, int n) LAMELLA_BODY {
    const F32 scaled = load(scores + i, n) * scale;
    largest = larger_lanes(first_lanes(scaled, n, largest), largest);
    store(scores + i, scaled, n);
  });
  const float top = max_lanes(largest);
  F32 sum = {};
  each_vector(count, [&](std::int64_t i, int n) LAMELLA_BODY {
    const F32 weight = exponential(load(scores + i, n) - top);
    sum += first_lanes(weight, n, F32{});
    store(scores + i, weight, n);
  });
  return {top, sum_lanes(sum)};
}

/// sums[q][d] += weights[q][j] * value[j][d] for `rows` slots of one block; `Vectors` vectors of the head at a time.
template <int Queries, int Vectors, typename T>
LAMELLA_INLINE void add_values(float* sums, std::int64_t padded, const float* weights, const T* values,
                               std::int64_t dim, std::int64_t rows, int last_count) {
  F32 sum[Queries][Vectors];
#pragma GCC unroll 4
  for (int q = 0; q < Queries; ++q)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sum[q][v] = load(sums + q * padded + std::int64_t{v} * lanes);
  for (std::int64_t j = 0; j < rows; ++j) {
    F32 value[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      value[v] = load(values + j * dim + std::int64_t{v} * lanes, v + 1 == Vectors ? last_count : lanes);
#pragma GCC unroll 4
    for (int q = 0; q < Queries; ++q) {
      const F32 weight = splat(weights[q * attention_part_tokens + j]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[q][v] = multiply_add(weight, value[v], sum[q][v]);
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < Queries; ++q)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(sums + q * padded + std::int64_t{v} * lanes, sum[q][v]);
}

/// The value sums of `Queries` queries over positions [begin, end) of a part that starts at `part`.
template <int Queries, typename T>
[[gnu::noinline]] void part_values(const KvLayout& kv, const std::int32_t* blocks, std::int64_t kv_head,
                                   const float* weights, std::int64_t part, std::int64_t begin, std::int64_t end,
                                   float* sums, std::int64_t padded) {
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t slot = at % kv_block_tokens, rows = smaller(kv_block_tokens - slot, end - at);
    const T* values =
        static_cast<const T*>(kv.cache) + kv.offset(blocks[at / kv_block_tokens], 1, kv_head) + slot * kv.head_dim;
    const float* block_weights = weights + (at - part);
    constexpr std::int64_t value_step = std::int64_t{value_vectors} * lanes;
    std::int64_t d = 0;
    for (; d + value_step <= kv.head_dim; d += value_step)
      add_values<Queries, value_vectors>(sums + d, padded, block_weights, values + d, kv.head_dim, rows, lanes);
    for (; d < kv.head_dim; d += lanes)
      add_values<Queries, 1>(sums + d, padded, block_weights, values + d, kv.head_dim, rows,
                             static_cast<int>(smaller(lanes, kv.head_dim - d)));
    at += rows;
  }
}

/// merged = merged and part together, both rescaled to the larger of their largest scores.
LAMELLA_INLINE void merge(Running& total, float* merged, const Running& part, const float* values,
                          std::int64_t padded) {
  const float largest = total.largest > part.largest ? total.largest : part.largest;
  const float old_scale = exponential(splat(total.largest - largest))[0],
              new_scale = exponential(splat(part.largest - largest))[0];
  total = {largest, total.sum * old_scale + part.sum * new_scale};
  for (std::int64_t d = 0; d < padded; d += lanes)
    store(merged + d, load(merged + d) * old_scale + load(values + d) * new_scale);
}

template <typename T>
[[gnu::noinline]] void attend(const KvLayout& kv, const std::int32_t* blocks, std::int64_t kv_head,
                              const QueryTile<T>& tile, float scale, AttentionScratch<T> scratch) {
  const std::int64_t dim = kv.head_dim, padded = scratch.padded;
  alignas(64) float scores[max_queries * attention_part_tokens];
  Running total[max_queries];
  std::int64_t nearest = tile.begin[0], farthest = 0;
  for (int q = 0; q < tile.count; ++q) {
    __builtin_memcpy(scratch.queries + q * dim, tile.query[q], static_cast<std::size_t>(dim) * sizeof(T));
    nearest = smaller(nearest, tile.begin[q]);
    farthest = larger(farthest, tile.end[q]);
  }
  for (std::int64_t at = nearest / attention_part_tokens * attention_part_tokens; at < farthest;
       at += attention_part_tokens) {
    const std::int64_t part_end = smaller(at + attention_part_tokens, farthest);
    const std::int64_t first_block = larger(at, nearest / kv_block_tokens * kv_block_tokens);
    part_scores(kv, blocks, kv_head, scratch.queries, tile.count, at, first_block, part_end, scores);
    Running part[max_queries];
    std::int64_t shared_begin = at, shared_end = part_end, begin[max_queries], end[max_queries];
    for (int q = 0; q < tile.count; ++q) {
      begin[q] = smaller(part_end, larger(at, tile.begin[q]));
      end[q] = larger(begin[q], smaller(part_end, tile.end[q]));
      shared_begin = larger(shared_begin, begin[q]);
      shared_end = smaller(shared_end, end[q]);
      if (end[q] > begin[q])
        part[q] = exponentiate(scores + q * attention_part_tokens + (begin[q] - at), end[q] - begin[q], scale);
    }
    shared_end = larger(shared_begin, shared_end);
    for (std::int64_t i = 0; i < tile.count * padded; i += lanes) store(scratch.part + i, F32{});
    // A query adds its values in the order of positions, whichever of them it shares.
    const auto own_values = [&](int q, std::int64_t from, std::int64_t to) LAMELLA_BODY {
      part_values<1, T>(kv, blocks, kv_head, scores + q * attention_part_tokens, at, from, to,
                        scratch.part + q * padded, padded);
    };
    for (int q = 0; q < tile.count; ++q) own_values(q, begin[q], smaller(shared_begin, end[q]));
    with_count<max_queries>(tile.count, [&](auto count) LAMELLA_BODY {
      part_values<decltype(count)::value, T>(kv, blocks, kv_head, scores, at, shared_begin, shared_end, scratch.part,
                                             padded);
    });
    for (int q = 0; q < tile.count; ++q) {
      own_values(q, shared_end, end[q]);
      if (end[q] == begin[q]) continue;
      float *values = scratch.part + q * padded, *merged = scratch.merged + q * padded;
      if (tile.begin[q] >= at) {
        total[q] = part[q];
        __builtin_memcpy(merged, values, static_cast<std::size_t>(padded) * sizeof(float));
      } else {
        merge(total[q], merged, part[q], values, padded);
      }
    }
  }
  for (int q = 0; q < tile.count; ++q)
    each_vector(dim, [&](std::int64_t d, int n) LAMELLA_BODY {
      store(tile.y[q] + d, load(scratch.merged + q * padded + d) / total[q].sum, n);
    });
}

/// Units of work are (KV head, token, query head of the group), in this order: even one token of one sequence is shared
/// by all workers, and neighbouring units read the same K and V.
template <typename T, bool ByToken>
void attention_over(const AttentionArgs& a, const Worker& worker) {
  const std::int64_t group = a.heads / a.kv.kv_heads, dim = a.kv.head_dim;
  const Range mine = share(a.heads * a.tokens, worker);
  const AttentionScratch<T> scratch(worker, dim);
  for (std::int64_t kv_head = 0; kv_head < a.kv.kv_heads; ++kv_head) {
    for (std::int64_t s = 0; s < a.kv.sequence_count; ++s) {
      const std::int64_t first = a.kv.sequences[s].first, tokens = a.kv.sequences[s].count;
      const std::int64_t base = kv_head * a.tokens * group;
      const std::int64_t begin = larger(mine.begin, base + first * group),
                         end = smaller(mine.end, base + (first + tokens) * group);
      for (std::int64_t unit = begin; unit < end; unit += max_queries) {
        QueryTile<T> tile;
        for (std::int64_t u = unit; u < smaller(unit + max_queries, end); ++u) {
          const std::int64_t t = (u - base) / group, head = kv_head * group + (u - base) % group;
          const std::int64_t row = (ByToken ? t * a.heads + head : head * a.tokens + t) * dim;
          tile.query[tile.count] = static_cast<const T*>(a.query) + row;
          tile.y[tile.count] = static_cast<T*>(a.y) + row;
          tile.end[tile.count] = std::int64_t{a.kv.positions[a.causal ? t : first + tokens - 1]} + 1;
          tile.begin[tile.count] = a.first_seen(tile.end[tile.count]);
          ++tile.count;
        }
        attend(a.kv, a.kv.block_tables + s * a.kv.blocks_per_sequence, kv_head, tile, a.scale, scratch);
      }
    }
  }
}

template <typename T>
void attention(const AttentionArgs& a, const Worker& worker) {
  attention_over<T, false>(a, worker);
}
/// Region 2: the two changes of layout are strides.
template <typename T>
void layout_attention(const AttentionArgs& a, const Worker& worker) {
  attention_over<T, true>(a, worker);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
