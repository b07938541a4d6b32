// Decoding where the KV heads do not divide by the workers: they share out the parts of the contexts instead of rows.
//
// Contexts stand one behind the other, KV head by KV head, and are cut into shares of equal length at the beginnings of
// parts. First, everybody goes through the parts of its share. Who begins a context and does not end it keeps the merged
// results of its parts; who goes on keeps those of every part. Then who began merges them in index order, as a worker does
// who has them all: the bits are the same.
#pragma once

#include "cpu/kernels/vector/attention_parts.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// A context: what the query heads of one KV head, as many as a tile holds, see of one sequence.
struct SplitContext {
  std::int64_t kv_head, sequence, first_row;  // of the group
  std::int64_t offset;  // among all contexts
  std::int64_t begin, end;  // positions; the first is that of a part

  /// The position at which the share ends, or begins, that is cut at `place` among all contexts.
  [[nodiscard]] LAMELLA_INLINE std::int64_t cut(std::int64_t place) const {
    return smaller(end, begin + round_up(larger(0, place - offset), part_tokens));
  }
};

class SplitShares {
 public:
  LAMELLA_INLINE SplitShares(const AttentionArgs& a, const Worker& worker)
      : a_(a),
        worker_(worker),
        group_(a.heads / a.kv.kv_heads),
        rows_(smaller(group_, tile_rows)),
        kept_part_(rows_ * kept_row(kv_padded(a.kv.head_dim))) {
    for (std::int64_t s = 0; s < a.kv.sequence_count; ++s) all_ += length(s) * ((group_ + rows_ - 1) / rows_);
    all_ *= a.kv.kv_heads;
  }

  /// Where the share of worker `index` begins among all contexts.
  [[nodiscard]] LAMELLA_INLINE std::int64_t begin_of(int index) const {
    return (all_ * index + worker_.count - 1) / worker_.count;
  }
  /// Where worker `index` keeps the merged parts of a context; the parts of another one stand behind.
  [[nodiscard]] LAMELLA_INLINE float* kept_by(int index) const {
    const std::int64_t parts = (a_.kv.blocks_per_sequence + part_blocks - 1) / part_blocks;
    return reinterpret_cast<float*>(worker_.shared.data) + index * (parts + 1) * kept_part_;
  }
  [[nodiscard]] LAMELLA_INLINE std::int64_t kept_part() const { return kept_part_; }

  /// body(context) for all that have a place in the worker's share.
  template <typename Body>
  LAMELLA_INLINE void each_own(Body body) const {
    const std::int64_t begin = begin_of(worker_.index), end = begin_of(worker_.index + 1);
    std::int64_t offset = 0;
    for (std::int64_t kv_head = 0; kv_head < a_.kv.kv_heads; ++kv_head)
      for (std::int64_t s = 0; s < a_.kv.sequence_count; ++s)
        for (std::int64_t row = 0; row < group_; row += rows_) {
          const std::int64_t at = offset;
          offset += length(s);
          if (at < end && offset > begin) body(SplitContext{kv_head, s, row, at, first(s), end_of(s)});
        }
  }

  template <typename T>
  LAMELLA_INLINE RowTile tile_of(const SplitContext& context, bool by_token) const {
    RowTile tile;
    const std::int64_t token = a_.kv.sequences[context.sequence].first;
    for (std::int64_t row = context.first_row; row < smaller(context.first_row + rows_, group_); ++row)
      add_row<T>(tile, a_, by_token, context.kv_head * group_ + row, token, context.end);
    return tile;
  }

 private:
  [[nodiscard]] LAMELLA_INLINE std::int64_t end_of(std::int64_t s) const {
    return std::int64_t{a_.kv.positions[a_.kv.sequences[s].first]} + 1;
  }
  [[nodiscard]] LAMELLA_INLINE std::int64_t first(std::int64_t s) const {
    return a_.first_seen(end_of(s)) / part_tokens * part_tokens;
  }
  [[nodiscard]] LAMELLA_INLINE std::int64_t length(std::int64_t s) const { return end_of(s) - first(s); }

  const AttentionArgs& a_;
  const Worker& worker_;
  std::int64_t group_, rows_, kept_part_, all_ = 0;
};

/// The results of a context that this worker began and others ended.
template <typename T>
[[gnu::noinline]] void merge_kept(const SplitShares& shares, const SplitContext& context, const RowTile& tile,
                                  std::int64_t dim, int next) {
  const std::int64_t padded = kv_padded(dim);
  float* merged = shares.kept_by(next - 1);
  for (std::int64_t at = context.cut(shares.begin_of(next)); at < context.end; ++next) {
    const float* part = shares.kept_by(next) + shares.kept_part();
    const std::int64_t end = context.cut(shares.begin_of(next + 1));
    for (; at < end; at += part_tokens, part += tile.count * kept_row(padded))
      for (int r = 0; r < tile.count; ++r) {
        float* own = merged + r * kept_row(padded);
        const float* other = part + r * kept_row(padded);
        Running total, more;
        __builtin_memcpy(&total, own + padded, sizeof total);
        __builtin_memcpy(&more, other + padded, sizeof more);
        merge(total, own, more, other, padded);
        __builtin_memcpy(own + padded, &total, sizeof total);
      }
  }
  for (int r = 0; r < tile.count; ++r)
    row_access<T>.write(tile.y[r], merged + r * kept_row(padded), merged[r * kept_row(padded) + padded + 1], dim);
}

template <typename T, typename Product>
void attend_split(const AttentionArgs& a, bool by_token, const Worker& worker) {
  const SplitShares shares(a, worker);
  const AttentionScratch scratch(worker, a.kv.head_dim);
  const std::int64_t share_begin = shares.begin_of(worker.index), share_end = shares.begin_of(worker.index + 1);
  shares.each_own([&](const SplitContext& context) LAMELLA_BODY {
    const std::int64_t begin = context.cut(share_begin), end = context.cut(share_end);
    const bool begins = begin == context.begin, ends = end == context.end;
    if (begin == end) return;
    const RowTile tile = shares.tile_of<T>(context, by_token);
    if (worker.phase == 0) {
      float* kept = shares.kept_by(worker.index) + (begins ? 0 : shares.kept_part());
      const KvHead kv{a.kv, a.kv.block_tables + context.sequence * a.kv.blocks_per_sequence, context.kv_head};
      attend<Product>(kv, tile, {begin, end, kept}, a.scale, row_access<T>, scratch);
    } else if (begins && !ends) {
      merge_kept<T>(shares, context, tile, a.kv.head_dim, worker.index + 1);
    }
  });
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
