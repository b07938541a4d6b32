// What a tile of queries gets from the parts of its context.
#pragma once

#include "cpu/kernels/vector/attention_scores.h"
#include "cpu/kernels/vector/attention_values.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// merged = merged and the part together, both rescaled to the larger of their largest scores.
LAMELLA_INLINE void merge(Running& total, float* merged, const Running& part, const float* values,
                          std::int64_t padded) {
  const float largest = total.largest > part.largest ? total.largest : part.largest;
  const float old_scale = power_of_two(splat(total.largest - largest))[0],
              new_scale = power_of_two(splat(part.largest - largest))[0];
  total = {largest, total.sum * old_scale + part.sum * new_scale};
  for (std::int64_t d = 0; d < padded; d += lanes)
    store(merged + d, load(merged + d) * old_scale + load(values + d) * new_scale);
}

/// One part of a tile's context, from position `at` on: scores, weights and values. Rows that see nothing of it have
/// empty spans and nothing else.
template <typename Product>
[[gnu::noinline]] void attend_part(const PlaneStream& stream, const RowTile& tile, std::int64_t at, std::int64_t dim,
                                   float scale, const DigitRow* queries, const AttentionScratch& scratch,
                                   PartSpan* spans, Running* part) {
  const std::int64_t padded = scratch.padded, last = stream.end();
  part_scores<Product>(stream, tile.count, dim, scale * log2_e, queries, scratch);
  DigitRow digits[tile_rows] = {};
  // What reading the scores has not asked for yet; many queries find the planes in a cache.
  const bool few = tile.count <= 2 * attention_tile.tokens && stream.lead < stream.blocks;
  const std::byte* const* values = stream.planes + stream.blocks;
  LineFetch lines{values + (few ? stream.lead : 0), values + (few ? stream.blocks : 0), stream.plane_lines};
  for (int r = 0; r < tile.count; ++r) {
    PartSpan& span = spans[r];
    span.first = stream.first;
    span.last = last;
    span.begin = smaller(last, larger(stream.first, tile.begin[r] - at));
    span.end = larger(span.begin, smaller(last, tile.end[r] - at));
    float* scores = scratch.scores + r * part_tokens;
    if (span.begin < span.end) part[r] = weigh_part<Product>(scores, span, stream, lines, digits[r]);
    else if (Product::digits == 2) __builtin_memset(scores, 0, part_tokens * sizeof(float));  // its tile goes on
  }
  __builtin_memset(scratch.part, 0, static_cast<std::size_t>(tile.count * padded) * sizeof(float));
  for (int r = 0; r < tile.count; r += register_rows<Product>)
    with_count<register_rows<Product>>(tile.count - r, [&](auto count) LAMELLA_BODY {
      const auto* weights = reinterpret_cast<const typename Product::Form*>(scratch.scores + r * part_tokens);
      tile_values<Product, decltype(count)::value>({stream, padded, weights, digits + r, scratch.part + r * padded},
                                                   spans + r);
    });
}

/// What is at hand of a tile's context: positions [begin, end), cut at parts. Where that is not all, the results go to
/// `kept`: one merged row of results a query where the context begins here, otherwise those of every part.
struct Stretch {
  std::int64_t begin, end;
  float* kept = nullptr;
};

/// Results of `count` queries, kept one behind the other: the sums of values, and behind them the largest score and the
/// sum of weights.
LAMELLA_INLINE float* keep(const Running* running, const float* values, int count, std::int64_t padded, float* to) {
  for (int r = 0; r < count; ++r, to += kept_row(padded)) {
    __builtin_memcpy(to, values + r * padded, static_cast<std::size_t>(padded) * sizeof(float));
    __builtin_memcpy(to + padded, running + r, sizeof *running);
  }
  return to;
}

template <typename Product>
[[gnu::noinline]] void attend(const KvHead& kv, const RowTile& tile, const Stretch& stretch, float scale,
                              const RowAccess& access, const AttentionScratch& scratch) {
  const std::int64_t dim = kv.kv.head_dim, padded = scratch.padded;
  constexpr int rows = register_rows<Product>;
  static_assert(tile_rows % rows == 0);
  DigitRow queries[tile_rows];
  std::int64_t nearest = tile.begin[0], farthest = 0;
  for (int r = 0; r < tile.count; ++r) {
    nearest = smaller(nearest, tile.begin[r]);
    farthest = larger(farthest, tile.end[r]);
    __builtin_memset(scratch.row, 0, static_cast<std::size_t>(padded) * sizeof(float));
    access.read(tile.query[r], scratch.row, dim);
    auto* forms = reinterpret_cast<typename Product::Form*>(scratch.queries) +
                  std::int64_t{r / rows} * rows * scratch.query_forms;
    queries[r] = place_query<Product>(scratch.row, dim, forms, r % rows);
  }
  const bool from_begin = stretch.begin <= nearest, to_end = stretch.end >= farthest;
  const std::int64_t last = smaller(farthest, stretch.end), end = (last + kv_block_tokens - 1) / kv_block_tokens;
  PartSpan spans[tile_rows];
  Running total[tile_rows], part[tile_rows];
  float* kept = stretch.kept;
  for (std::int64_t at = larger(nearest, stretch.begin) / part_tokens * part_tokens; at < last; at += part_tokens) {
    const std::int64_t block = at / kv_block_tokens;
    const PlaneStream stream(kv, block, larger(block, nearest / kv_block_tokens), smaller(block + part_blocks, end),
                             end);
    attend_part<Product>(stream, tile, at, dim, scale, queries, scratch, spans, part);
    if (!from_begin) {
      kept = keep(part, scratch.part, tile.count, padded, kept);
      continue;
    }
    for (int r = 0; r < tile.count; ++r) {
      if (spans[r].begin == spans[r].end) continue;
      float *own = scratch.part + r * padded, *merged = scratch.merged + r * padded;
      if (tile.begin[r] >= at) {
        total[r] = part[r];
        __builtin_memcpy(merged, own, static_cast<std::size_t>(padded) * sizeof(float));
      } else {
        merge(total[r], merged, part[r], own, padded);
      }
    }
  }
  if (!from_begin) return;
  if (!to_end) {
    keep(total, scratch.merged, tile.count, padded, kept);
    return;
  }
  for (int r = 0; r < tile.count; ++r) access.write(tile.y[r], scratch.merged + r * padded, total[r].sum, dim);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
