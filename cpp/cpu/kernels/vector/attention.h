// Attention over the KV cache, for prompts and decoding alike.
//
// A query's context is cut at multiples of attention_part_tokens. Each part gives its largest score, the sum of its
// weights and the weighted sum of its values; parts are merged in index order. Queries that read the same K and V
// (heads of one group, neighbouring tokens of one sequence) go through a part together, in register tiles; nothing that
// a query computes depends on its company: scores and weights stand at absolute positions, and values that not all of a
// tile see are added query by query, in the order of positions.
#pragma once

#include "cpu/kernels/vector/attention_split.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Rows are (KV head, sequence, token, query head of the group), in this order: workers share them by the positions
/// that they see, and a tile is a run of rows that read the same K and V.
class Rows {
 public:
  LAMELLA_INLINE Rows(const AttentionArgs& a, std::int64_t group) : a_(a), group_(group) {
    for (std::int64_t s = 0; s < a.kv.sequence_count; ++s) {
      const SequenceSpan span = a.kv.sequences[s];
      for (std::int64_t t = span.first; t < span.first + span.count; ++t) head_cost_ += group * cost(s, t);
    }
  }

  [[nodiscard]] LAMELLA_INLINE std::int64_t end_of(std::int64_t s, std::int64_t t) const {
    const SequenceSpan span = a_.kv.sequences[s];
    return std::int64_t{a_.kv.positions[a_.causal ? t : span.first + span.count - 1]} + 1;
  }
  /// The first row of worker `index`: rows before it cost its predecessors' share.
  [[nodiscard]] std::int64_t first_of(int index, int count) const {
    const std::int64_t all = head_cost_ * a_.kv.kv_heads;
    std::int64_t left = all / count * index + all % count * index / count;
    std::int64_t row = left / head_cost_ * group_ * a_.tokens;
    left %= head_cost_;
    for (std::int64_t s = 0; s < a_.kv.sequence_count && left > 0; ++s) {
      const SequenceSpan span = a_.kv.sequences[s];
      for (std::int64_t t = span.first; t < span.first + span.count && left > 0; ++t) {
        const std::int64_t rows = smaller(group_, left / cost(s, t));
        row += rows;
        if (rows < group_) return row;
        left -= group_ * cost(s, t);
      }
    }
    return row;
  }

 private:
  /// Positions that a row sees, and what every row costs beside them.
  [[nodiscard]] LAMELLA_INLINE std::int64_t cost(std::int64_t s, std::int64_t t) const {
    const std::int64_t end = end_of(s, t);
    return end - a_.first_seen(end) + kv_block_tokens;
  }

  const AttentionArgs& a_;
  std::int64_t group_, head_cost_ = 0;
};

template <typename T, typename Product>
void attention_with(const AttentionArgs& a, bool by_token, const Worker& worker) {
  if (a.split) return attend_split<T, Product>(a, by_token, worker);
  const std::int64_t group = a.heads / a.kv.kv_heads, dim = a.kv.head_dim;
  const Rows rows(a, group);
  const std::int64_t mine_begin = rows.first_of(worker.index, worker.count),
                     mine_end = rows.first_of(worker.index + 1, worker.count);
  const AttentionScratch scratch(worker, dim);
  for (std::int64_t kv_head = 0; kv_head < a.kv.kv_heads; ++kv_head) {
    const std::int64_t base = kv_head * a.tokens * group;
    for (std::int64_t s = 0; s < a.kv.sequence_count; ++s) {
      const std::int64_t first = a.kv.sequences[s].first, tokens = a.kv.sequences[s].count;
      const std::int64_t begin = larger(mine_begin, base + first * group),
                         end = smaller(mine_end, base + (first + tokens) * group);
      const KvHead kv{a.kv, a.kv.block_tables + s * a.kv.blocks_per_sequence, kv_head};
      for (std::int64_t at = begin; at < end; at += tile_rows) {
        RowTile tile;
        for (std::int64_t row = at; row < smaller(at + tile_rows, end); ++row)
          add_row<T>(tile, a, by_token, kv_head * group + (row - base) % group, (row - base) / group,
                     rows.end_of(s, (row - base) / group));
        attend<Product>(kv, tile, {0, all_positions}, a.scale, row_access<T>, scratch);
      }
    }
  }
}

template <typename T>
void attention_over(const AttentionArgs& a, bool by_token, const Worker& worker) {
  switch (a.kv.type) {
    case DataType::f16: return attention_with<T, Widened<Fp16>>(a, by_token, worker);
    case DataType::bf16:
      if constexpr (multiplies_bf16_pairs && is_bf16<T>) return attention_with<T, Pairs>(a, by_token, worker);
      else return attention_with<T, Widened<Bf16>>(a, by_token, worker);
    case DataType::i8: return attention_with<T, Codes>(a, by_token, worker);
    default: return attention_with<T, Widened<float>>(a, by_token, worker);
  }
}

template <typename T>
Arithmetic attention_arithmetic(DataType kv) {
  if (kv == DataType::i8) return Arithmetic::int8;
  return kv == DataType::bf16 && multiplies_bf16_pairs && is_bf16<T> ? Arithmetic::bf16 : Arithmetic::f32;
}

template <typename T>
void attention(const AttentionArgs& a, const Worker& worker) {
  attention_over<T>(a, false, worker);
}
/// Region 2: the two changes of layout are strides.
template <typename T>
void layout_attention(const AttentionArgs& a, const Worker& worker) {
  attention_over<T>(a, true, worker);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
