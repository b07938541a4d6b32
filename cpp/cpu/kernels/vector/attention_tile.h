// What a worker has in hand while it attends: a tile of queries, its scratch, and the planes of a part of the context.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/kv_product.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

constexpr std::int64_t part_tokens = attention_part_tokens;
constexpr std::int64_t all_positions = std::int64_t{1} << 62;
constexpr int part_blocks = static_cast<int>(part_tokens / kv_block_tokens);
constexpr int tile_rows = static_cast<int>(attention_tile_rows);
constexpr int kv_block_vectors = static_cast<int>(kv_block_tokens) / lanes;
constexpr int tile_blocks = attention_tile.vectors / kv_block_vectors;  // of keys
static_assert(kv_block_tokens % lanes == 0 && attention_tile.vectors % kv_block_vectors == 0);

/// Queries of a register tile: a query of two digits takes the place of two.
template <typename Product>
constexpr int register_rows = attention_tile.tokens / Product::digits;
/// Forms of neighbouring digits of weights are this far apart, in the place of the query's scores.
template <typename Product>
constexpr std::int64_t weight_row = part_tokens / Product::digits;

/// Rows of one sequence and one KV head that are taken together.
struct RowTile {
  int count = 0;
  const void* query[tile_rows];
  void* y[tile_rows];
  std::int64_t begin[tile_rows], end[tile_rows];  // sees positions [begin, end)
};

/// Rows of the engine's dtype to fp32 and back: attention itself knows only how K and V are stored.
struct RowAccess {
  void (*read)(const void* from, float* to, std::int64_t width);
  void (*write)(void* to, const float* from, float divisor, std::int64_t width);
};
template <typename T>
constexpr RowAccess row_access = {[](const void* from, float* to, std::int64_t width) {
                                    each_vector(width, [&](std::int64_t i, int count) LAMELLA_BODY {
                                      store(to + i, load(static_cast<const T*>(from) + i, count));
                                    });
                                  },
                                  [](void* to, const float* from, float divisor, std::int64_t width) {
                                    each_vector(width, [&](std::int64_t i, int count) LAMELLA_BODY {
                                      store(static_cast<T*>(to) + i, load(from + i) / divisor, count);
                                    });
                                  }};

/// Adds the query of `head` and `token`, which sees what comes before position `end`.
template <typename T>
LAMELLA_INLINE void add_row(RowTile& tile, const AttentionArgs& a, bool by_token, std::int64_t head, std::int64_t token,
                            std::int64_t end) {
  const std::int64_t place = (by_token ? token * a.heads + head : head * a.tokens + token) * a.kv.head_dim;
  const int r = tile.count++;
  tile.query[r] = static_cast<const T*>(a.query) + place;
  tile.y[r] = static_cast<T*>(a.y) + place;
  tile.begin[r] = a.first_seen(end);
  tile.end[r] = end;
}

/// A worker's scratch (scratch.cpp counts it).
struct AttentionScratch {
  std::int64_t padded, query_forms;  // floats of a row, and of a query's forms
  float* row;  // [padded]
  float* queries;  // [tile_rows][query_forms], register tile by register tile
  float* merged;  // [tile_rows][padded]: value sums of all parts so far
  float* part;  // [tile_rows][padded]: of the part at hand
  float* scores;  // [tile_rows][part_tokens], and weights in their place

  LAMELLA_INLINE AttentionScratch(const Worker& worker, std::int64_t head_dim)
      : padded(kv_padded(head_dim)),
        query_forms(round_up(head_dim, attention_query_chunk) + attention_query_chunk),
        row(reinterpret_cast<float*>(worker.scratch.data)) {
    queries = row + padded;
    merged = queries + tile_rows * query_forms;
    part = merged + tile_rows * padded;
    scores = part + tile_rows * padded;
  }
};

/// The KV head of a sequence that a tile reads.
struct KvHead {
  const KvLayout& kv;
  const std::int32_t* blocks;
  std::int64_t head;

  [[nodiscard]] LAMELLA_INLINE const std::byte* plane(std::int64_t block, int k_or_v) const {
    return kv.plane(blocks[block], k_or_v, head);
  }
};

/// The planes of a part in the order in which they are read: keys, values, then those of the next part's keys that are
/// worth fetching ahead. Blocks lie scattered, so that the processor foresees nothing beyond the end of a plane.
struct PlaneStream {
  const std::byte* planes[3 * part_blocks];
  std::int64_t plane_lines = 0;
  std::int64_t first = 0;  // position of the first block in the part
  std::int64_t scales = 0;  // of int8, in bytes from the beginning of a plane
  int blocks = 0, count = 0, lead = 0;

  /// Blocks [begin, end) of a part that begins at block `part`, and those before `read_end` after it.
  LAMELLA_INLINE PlaneStream(const KvHead& kv, std::int64_t part, std::int64_t begin, std::int64_t end,
                             std::int64_t read_end)
      : first((begin - part) * kv_block_tokens),
        scales(kv_scales_offset(kv.kv.head_dim)),
        blocks(static_cast<int>(end - begin)) {
    constexpr std::int64_t lead_lines = 128;  // 8 KiB; 12 and 16 were slower
    plane_lines = kv_plane_bytes(kv.kv.type, kv.kv.head_dim) / 64;
    lead = static_cast<int>(smaller(part_blocks, larger(tile_blocks, lead_lines / plane_lines)));
    for (const int k_or_v : {0, 1})
      for (std::int64_t block = begin; block < end; ++block) planes[count++] = kv.plane(block, k_or_v);
    for (std::int64_t block = end; block < smaller(read_end, end + lead); ++block) planes[count++] = kv.plane(block, 0);
  }
  /// Position, from the beginning of the part, behind the last block.
  [[nodiscard]] LAMELLA_INLINE std::int64_t end() const { return first + blocks * kv_block_tokens; }
  [[nodiscard]] LAMELLA_INLINE const std::byte* key(int block) const { return planes[block]; }
  [[nodiscard]] LAMELLA_INLINE const std::byte* value(int block) const { return planes[blocks + block]; }
  /// Scales of keys, and of values, of the block's slots.
  [[nodiscard]] LAMELLA_INLINE const float* key_scales(int block) const {
    return reinterpret_cast<const float*>(key(block) + scales);
  }
  [[nodiscard]] LAMELLA_INLINE const float* value_scales(int block) const {
    return reinterpret_cast<const float*>(value(block) + scales);
  }
  [[nodiscard]] LAMELLA_INLINE const std::byte* ahead_of_key(int block) const {
    return planes[smaller(block + lead, count - 1)];
  }
  [[nodiscard]] LAMELLA_INLINE const std::byte* ahead_of_value(int block) const { return ahead_of_key(blocks + block); }
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
