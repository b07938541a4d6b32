// Puts tokens' K and V into the cache (memory/kv_layout.h).
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/rounding.h"

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

using KvBytes = std::uint8_t __attribute__((vector_size(lanes)));

/// Calls body(Constant<M>, Stored{}) for the type in which K and V are stored, where it is a float.
template <typename Body>
LAMELLA_INLINE void with_stored(DataType type, Body body) {
  switch (type) {
    case DataType::f16: return body(Constant<kv_word_elements(DataType::f16)>{}, Fp16{});
    case DataType::bf16: return body(Constant<kv_word_elements(DataType::bf16)>{}, Bf16{});
    default: return body(Constant<kv_word_elements(DataType::f32)>{}, float{});
  }
}

/// Spreads `count` elements of a row, those from `d` on, over the slot's words. Elements are stored one by one: workers
/// may write neighbouring slots at the same time.
template <int Word, typename Stored>
LAMELLA_INLINE void put_key(Stored* plane, std::int64_t slot, std::int64_t d, const Stored* row, int count) {
  constexpr std::size_t bytes = Word * sizeof(Stored);
  for (int i = 0; i < count; i += Word) __builtin_memcpy(plane + key_element(Word, slot, d + i), row + i, bytes);
}
template <int Word, typename Stored>
LAMELLA_INLINE void put_value(Stored* plane, std::int64_t head_dim, std::int64_t slot, std::int64_t d,
                              const Stored* row, int count) {
  Stored* to = plane + value_element(Word, head_dim, slot, d);
  for (int i = 0; i < count; ++i) to[std::int64_t{i} * Word] = row[i];
}

/// Rounds a row to int8 as memory/kv_layout.h says. The body is told of every vector's codes, as bytes of code + 128.
/// Returns the scale.
template <typename From, typename Body>
LAMELLA_INLINE float round_kv_row(const From* row, std::int64_t width, Body body) {
  const Rounding rounding(magnitudes_of(row, width), 127.0F);
  each_vector(width, [&](std::int64_t d, int count) LAMELLA_BODY {
    const I32 codes = rounding.round(load(row + d, count)) + 128;
    const auto bytes = __builtin_convertvector(codes, KvBytes);
    std::uint8_t elements[lanes];
    __builtin_memcpy(elements, &bytes, sizeof elements);
    body(d, count, elements);
  });
  return rounding.scale;
}

/// Stores a token's K (k_or_v 0) or V (1) of one head, `row`, in its slot.
template <typename From>
[[gnu::noinline]] void write_kv_row(const KvLayout& kv, std::int64_t block, int k_or_v, std::int64_t head,
                                    std::int64_t slot, const From* row) {
  if (kv.type == DataType::i8) {
    constexpr int m = kv_word_elements(DataType::i8);
    std::byte* bytes = kv.plane(block, k_or_v, head);
    auto* plane = reinterpret_cast<std::uint8_t*>(bytes);
    const float scale =
        round_kv_row(row, kv.head_dim, [&](std::int64_t d, int count, const std::uint8_t* codes) LAMELLA_BODY {
          if (k_or_v == 0) put_key<m>(plane, slot, d, codes, count);
          else put_value<m>(plane, kv.head_dim, slot, d, codes, count);
        });
    __builtin_memcpy(bytes + kv_scales_offset(kv.head_dim) + slot * 4, &scale, sizeof scale);
    return;
  }
  with_stored(kv.type, [&](auto word, auto stored) LAMELLA_BODY {
    constexpr int m = decltype(word)::value;
    using Stored = decltype(stored);
    Stored* plane = reinterpret_cast<Stored*>(kv.plane(block, k_or_v, head));
    each_vector(kv.head_dim, [&](std::int64_t d, int count) LAMELLA_BODY {
      Stored elements[lanes];
      store(elements, load(row + d, count));  // behind a row's end zeros: they fill its last word
      if (k_or_v == 0) put_key<m>(plane, slot, d, elements, count);
      else put_value<m>(plane, kv.head_dim, slot, d, elements, count);
    });
  });
}

template <typename T>
void kv_write(const KvWriteArgs& a, const Worker& worker) {
  const std::int64_t heads = a.kv.kv_heads, dim = a.kv.head_dim;
  const Range mine = share(a.tokens, worker);
  each_slot(a.kv, mine.begin, mine.end, [&](std::int64_t t, std::int64_t block, std::int64_t slot) LAMELLA_BODY {
    for (std::int64_t head = 0; head < heads; ++head) {
      const std::int64_t from = (t * heads + head) * dim;
      write_kv_row(a.kv, block, 0, head, slot, static_cast<const T*>(a.key) + from);
      write_kv_row(a.kv, block, 1, head, slot, static_cast<const T*>(a.value) + from);
    }
  });
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
