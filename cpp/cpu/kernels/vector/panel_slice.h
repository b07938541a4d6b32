// A run of tiles of one panel (memory/panels.h), and the part of it that a register tile walks at a time.
#pragma once

#include "cpu/kernels/vector/group_tail.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Tiles [begin, end) of one panel.
struct PanelSlice {
  const std::byte* panel;
  PanelLayout layout;
  WeightFormat format;
  std::int64_t tiles, begin, end;  // tiles of the panel; those that are meant
  std::int64_t block_bytes;  // of all groups but the last
  std::int64_t group_words, last_words;  // of a group, of the last one

  [[nodiscard]] LAMELLA_INLINE std::int64_t vectors() const { return (end - begin) * tile_outputs / lanes; }
  [[nodiscard]] LAMELLA_INLINE std::int64_t word_stride() const { return tiles * tile_outputs * 4; }
  /// First lane of vector `v`, counted in the panel.
  [[nodiscard]] LAMELLA_INLINE std::int64_t lane(std::int64_t v) const { return begin * tile_outputs + v * lanes; }
  [[nodiscard]] LAMELLA_INLINE const std::byte* block(std::int64_t group) const { return panel + group * block_bytes; }
  /// Words of a group; without the division of PanelLayout, which a short group would feel.
  [[nodiscard]] LAMELLA_INLINE std::int64_t words_of(std::int64_t group) const {
    return group + 1 < layout.groups ? group_words : last_words;
  }
  [[nodiscard]] LAMELLA_INLINE GroupTail tail(std::int64_t group, std::int64_t v) const {
    const std::byte* scales = block(group) + words_of(group) * word_stride();
    const std::byte* offsets = scales + tiles * tile_outputs * layout.scale_bytes;
    return {scales + lane(v) * layout.scale_bytes, offsets + lane(v) * layout.offset_bytes, format.scale, format.offset,
            code_bias(format)};
  }
};

/// Groups [first_group, end_group) and, of an ungrouped panel, words [first_word, end_word).
struct Chunk {
  std::int64_t first_group, end_group, first_word, end_word;
  bool first, last;  // of the row
};

/// Lines of memory that a pass asks for, one or two a word: `from` for its first word, `step` bytes on for each that follows,
/// and another `second` bytes behind each.
struct LinesAhead {
  const std::byte* from;
  std::int64_t step, second;
};

/// A register tile of a pass: which tokens and vectors, where their sums stand between chunks and at the end, and what is
/// asked for meanwhile.
struct TilePlace {
  std::int64_t token, vector;
  float* y;  // of the first token and vector
  std::int64_t y_stride;
  LinesAhead ahead;
};

template <typename Vector, int V, int N>
LAMELLA_INLINE void load_sums(Vector (&sums)[N][V], const TilePlace& place) {
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[n][v] = load_bits<Vector>(place.y + n * place.y_stride + std::int64_t{v} * lanes);
}
template <typename Vector, int V, int N>
LAMELLA_INLINE void store_sums(const Vector (&sums)[N][V], const TilePlace& place) {
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      __builtin_memcpy(place.y + n * place.y_stride + std::int64_t{v} * lanes, &sums[n][v], sizeof(Vector));
}

/// Caches that lines are asked for in, as __builtin_prefetch counts them.
constexpr int first_level = 3, second_level = 2;

/// Asks for the lines ahead that belong to word `w` of a block. The scales and offsets behind a group's words are asked for
/// like one word more: they are a ninth of int4's bytes, and nothing else brings them in time (Zen 4, int4_a8, 8 tokens: 8.4
/// to 8.6 ms without, 5.7 to 6.3 with; linear-kernels-zen4-2026-11.md).
///
/// With Few they are all lines that V vectors of a word cover; otherwise they are of the next chunk. For the second-level
/// cache unless Level says otherwise: the first level has too few buffers for lines on their way to keep memory busy while
/// others are computed with (Zen 4, bf16: 8 tokens reach 0.80 of the read bandwidth that way and 0.96 this way, a step of
/// Llama-3.2-1B for one token takes 90 to 92 ms and 70 to 84). From there the processor itself brings what is read in even strides.
template <int V, bool Few, int Level>
LAMELLA_INLINE void ask(const LinesAhead& ahead, std::int64_t w) {
  constexpr int bytes = V * static_cast<int>(sizeof(U32));
  const std::byte* line = ahead.from + w * ahead.step;
  if constexpr (Few) {
#pragma GCC unroll 4
    for (int i = 0; i < bytes / 64; ++i) __builtin_prefetch(line + std::int64_t{64} * i, 0, Level);
  } else {
    __builtin_prefetch(line, 0, second_level);
    if constexpr (bytes > 64) __builtin_prefetch(line + ahead.second, 0, second_level);
  }
}

/// Calls body(words, index of the word) for words [begin, end) of a block, with V vectors of each, and asks for lines ahead.
template <int V, bool Few, int Level, typename Body>
LAMELLA_INLINE void each_word(const std::byte* at, std::int64_t stride, std::int64_t begin, std::int64_t end,
                              const LinesAhead& ahead, Body body) {
  for (std::int64_t w = begin; w < end; ++w) {
    U32 words[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      words[v] = load_bits<U32>(at + w * stride + std::int64_t{v} * std::int64_t{sizeof(U32)});
    ask<V, Few, Level>(ahead, w - begin);
    body(words, w);
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
