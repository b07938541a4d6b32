// Where a token's K and V stand in the cache, and the kernel that puts them there.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Calls body(token, block, slot) for every token of [begin, end): its block of the cache and its slot in the block.
template <typename Body>
LAMELLA_INLINE void each_slot(const KvLayout& kv, std::int64_t begin, std::int64_t end, Body body) {
  for (std::int64_t s = 0; s < kv.sequence_count; ++s) {
    const std::int64_t first = kv.sequences[s].first, last = first + kv.sequences[s].count;
    const std::int32_t* blocks = kv.block_tables + s * kv.blocks_per_sequence;
    for (std::int64_t t = larger(first, begin); t < smaller(last, end); ++t)
      body(t, std::int64_t{blocks[kv.positions[t] / kv_block_tokens]}, kv.positions[t] % kv_block_tokens);
  }
}

template <typename T>
LAMELLA_INLINE T* cache_row(const KvLayout& kv, std::int64_t block, int k_or_v, std::int64_t head, std::int64_t slot) {
  return static_cast<T*>(kv.cache) + kv.offset(block, k_or_v, head) + slot * kv.head_dim;
}

template <typename T>
void kv_write(const KvWriteArgs& a, const Worker& worker) {
  const std::int64_t heads = a.kv.kv_heads, dim = a.kv.head_dim;
  const std::size_t bytes = static_cast<std::size_t>(dim) * sizeof(T);
  const Range mine = share(a.tokens, worker);
  each_slot(a.kv, mine.begin, mine.end, [&](std::int64_t t, std::int64_t block, std::int64_t slot) LAMELLA_BODY {
    for (std::int64_t head = 0; head < heads; ++head) {
      const std::int64_t from = (t * heads + head) * dim;
      __builtin_memcpy(cache_row<T>(a.kv, block, 0, head, slot), static_cast<const T*>(a.key) + from, bytes);
      __builtin_memcpy(cache_row<T>(a.kv, block, 1, head, slot), static_cast<const T*>(a.value) + from, bytes);
    }
  });
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
