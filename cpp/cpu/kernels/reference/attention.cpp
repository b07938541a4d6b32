#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {
namespace {

/// Position `position` of sequence `s`: its K (0) or V (1) for `head`.
const float* cached(const KvLayout& kv, std::int64_t s, std::int64_t position, int k_or_v, std::int64_t head) {
  const std::int64_t block = kv.block_tables[s * kv.blocks_per_sequence + position / kv_block_tokens];
  return static_cast<const float*>(kv.cache) + kv.offset(block, k_or_v, head) +
         position % kv_block_tokens * kv.head_dim;
}

std::int64_t sequence_of(const KvLayout& kv, std::int64_t token) {
  std::int64_t s = 0;
  while (token < kv.sequences[s].first || token >= kv.sequences[s].first + kv.sequences[s].count) ++s;
  return s;
}

}  // namespace

void kv_write(const KvWriteArgs& a, const Worker& worker) {
  const KvLayout& kv = a.kv;
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    const std::int64_t s = sequence_of(kv, t);
    for (std::int64_t head = 0; head < kv.kv_heads; ++head) {
      const std::int64_t from = t * kv.kv_heads + head;
      std::copy_n(row_of(a.key, from, kv.head_dim), kv.head_dim,
                  const_cast<float*>(cached(kv, s, kv.positions[t], 0, head)));
      std::copy_n(row_of(a.value, from, kv.head_dim), kv.head_dim,
                  const_cast<float*>(cached(kv, s, kv.positions[t], 1, head)));
    }
  }
}

void split_heads(const HeadsLayoutArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t head = 0; head < a.heads; ++head)
      std::copy_n(row_of(a.x, t * a.heads + head, a.head_dim), a.head_dim,
                  row_of(a.y, head * a.tokens + t, a.head_dim));
}

void merge_heads(const HeadsLayoutArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t head = 0; head < a.heads; ++head)
      std::copy_n(row_of(a.x, head * a.tokens + t, a.head_dim), a.head_dim,
                  row_of(a.y, t * a.heads + head, a.head_dim));
}

/// Two passes over the whole context: the scores with their maximum, then the weights.
void attention(const AttentionArgs& a, const Worker& worker) {
  const std::int64_t dim = a.kv.head_dim, group = a.heads / a.kv.kv_heads;
  const Range mine = share(a.heads * a.tokens, worker);
  std::vector<double> weights, sums(static_cast<std::size_t>(dim));
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t head = unit / a.tokens, t = unit % a.tokens, s = sequence_of(a.kv, t);
    const SequenceSpan span = a.kv.sequences[s];
    const std::int64_t length = std::int64_t{a.kv.positions[a.causal ? t : span.first + span.count - 1]} + 1;
    const std::int64_t begin = a.first_seen(length);
    const float* query = row_of(a.query, unit, dim);
    weights.assign(static_cast<std::size_t>(length - begin), 0.0);
    for (std::int64_t j = begin; j < length; ++j) {
      const float* key = cached(a.kv, s, j, 0, head / group);
      double dot = 0.0;
      for (std::int64_t d = 0; d < dim; ++d) dot += static_cast<double>(query[d]) * key[d];
      weights[static_cast<std::size_t>(j - begin)] = dot * static_cast<double>(a.scale);
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0.0;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::int64_t j = begin; j < length; ++j) {
      const double weight = std::exp(weights[static_cast<std::size_t>(j - begin)] - largest);
      const float* value = cached(a.kv, s, j, 1, head / group);
      total += weight;
      for (std::int64_t d = 0; d < dim; ++d) sums[static_cast<std::size_t>(d)] += weight * value[d];
    }
    for (std::int64_t d = 0; d < dim; ++d)
      row_of(a.y, unit, dim)[d] = static_cast<float>(sums[static_cast<std::size_t>(d)] / total);
  }
}

}  // namespace lamella::cpu::reference
