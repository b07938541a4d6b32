// The product of a tile of tokens with tiles of a packed matrix: SBI-GeMM's inner loop (the paper's III-C) and the large
// batches' alike, from the same panels.
//
// Every vector lane owns an output. Its sum is one chain along the inputs (integers: one chain a group), in order, for 1
// token and for 512, so that an output's bits depend on nothing that shares its register tile. Few tokens: one walk over
// the panel, bound by memory. More: the inputs are cut into chunks whose weights stay in the first-level cache while all
// tokens of the tile pass; between chunks the sums wait in y, stored and loaded unchanged.
#pragma once

#include "cpu/kernels/vector/weight_kinds.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Weights of a chunk: half of a 32 KiB first-level cache, the inputs need the rest.
constexpr std::int64_t chunk_bytes = 16384;
/// Inputs of a chunk at most: 64 tokens' worth of fp32 are 32 KiB.
constexpr std::int64_t chunk_inputs = 128;
/// How far ahead of its use a line of weights is asked for where each is used once.
constexpr std::int64_t prefetch_bytes = 4096;

/// Tiles [begin, end) of one panel.
struct PanelSlice {
  const std::byte* panel;
  PanelLayout layout;
  WeightFormat format;
  std::int64_t tiles, begin, end;  // tiles of the panel; those that are meant

  [[nodiscard]] LAMELLA_INLINE std::int64_t vectors() const { return (end - begin) * tile_outputs / lanes; }
  [[nodiscard]] LAMELLA_INLINE std::int64_t word_stride() const { return tiles * tile_outputs * 4; }
  /// First lane of vector `v`, counted in the panel.
  [[nodiscard]] LAMELLA_INLINE std::int64_t lane(std::int64_t v) const { return begin * tile_outputs + v * lanes; }
  [[nodiscard]] LAMELLA_INLINE const std::byte* block(std::int64_t group) const {
    return panel + group * layout.block_bytes(0, tiles);
  }
  [[nodiscard]] LAMELLA_INLINE GroupTail tail(std::int64_t group, std::int64_t v) const {
    const std::byte* scales = block(group) + layout.words_of(group) * word_stride();
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

/// A register tile of a pass: which tokens and vectors, and where their sums stand between chunks and at the end.
struct TilePlace {
  std::int64_t token, vector;
  float* y;  // of the first token and vector
  std::int64_t y_stride;
  const std::byte* prefetch;  // one line of every word from here on is asked for; unused with few tokens
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

/// Calls body(words, index of the word) for words [begin, end) of a block, with V vectors of each.
template <int V, bool Few, typename Body>
LAMELLA_INLINE void each_word(const std::byte* at, std::int64_t stride, std::int64_t begin, std::int64_t end,
                              const std::byte* prefetch, Body body) {
  constexpr int lines = V * static_cast<int>(sizeof(U32)) / 64;
  for (std::int64_t w = begin; w < end; ++w) {
    U32 words[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      words[v] = load_bits<U32>(at + w * stride + std::int64_t{v} * std::int64_t{sizeof(U32)});
    if constexpr (Few) {
#pragma GCC unroll 4
      for (int line = 0; line < lines; ++line)
        __builtin_prefetch(at + w * stride + prefetch_bytes + std::int64_t{64} * line);
    } else {
      __builtin_prefetch(prefetch + (w - begin) * stride);
    }
    body(words, w);
  }
}

/// One register tile over one chunk, in fp32.
template <typename Kind, int V, int N, bool Few>
[[gnu::noinline]] void multiply_chunk(const PanelSlice& slice, const TokenTile& tile, const Chunk& chunk,
                                      const TilePlace& place) {
  F32 sums[N][V] = {};
  if (!chunk.first) load_sums(sums, place);
  const typename Kind::Input* rows;
  std::int64_t stride;
  if constexpr (Kind::form == InputForm::pairs) {
    rows = tile.pairs;
    stride = tile.pairs_stride;
  } else {
    rows = tile.values;
    stride = tile.values_stride;
  }
  const std::int64_t group_words = slice.layout.group_inputs / Kind::word_inputs;  // of whole groups
  for (std::int64_t g = chunk.first_group; g < chunk.end_group; ++g) {
    const typename Kind::template Group<V> group(slice.tail(g, place.vector));
    const typename Kind::Input* x = rows + place.token * stride + g * group_words * Kind::input_words;
    const std::int64_t end = smaller(chunk.end_word, slice.layout.words_of(g));
    each_word<V, Few>(slice.block(g) + slice.lane(place.vector) * 4, slice.word_stride(), chunk.first_word, end,
                      place.prefetch + (slice.block(g) - slice.block(chunk.first_group)),
                      [&](const U32(&words)[V], std::int64_t w)
                          LAMELLA_BODY { Kind::multiply(sums, words, x + w * Kind::input_words, stride, group); });
  }
  store_sums(sums, place);
}

/// Whole rows of int8 codes: the exact sum waits as an integer; the scales meet it at the end.
template <typename Kind, int V, int N, bool Few>
[[gnu::noinline]] void dot_chunk(const PanelSlice& slice, const TokenTile& tile, const Chunk& chunk,
                                 const TilePlace& place) {
  I32 sums[N][V];
  const std::int32_t* totals = tile.sums + place.token * tile.sums_stride + tile.sums_stride - 1;
  if (chunk.first) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[n][v] = -code_bias(slice.format) * totals[n * tile.sums_stride] - I32{};
  } else {
    load_sums(sums, place);
  }
  const std::int32_t* x = tile.codes + place.token * tile.codes_stride;
  each_word<V, Few>(slice.block(0) + slice.lane(place.vector) * 4, slice.word_stride(), chunk.first_word,
                    chunk.end_word, place.prefetch, [&](const U32(&words)[V], std::int64_t w) LAMELLA_BODY {
                      Kind::multiply(sums, words, x + w * Kind::input_words, tile.codes_stride);
                    });
  if (!chunk.last) return store_sums(sums, place);
  const GroupTail tail = slice.tail(0, place.vector);
  F32 results[N][V];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      results[n][v] =
          __builtin_convertvector(sums[n][v], F32) * tail.load_scale(v) * splat(tile.scales[place.token + n]);
  store_sums(results, place);
}

/// Groups of codes: an exact sum a group, which its scale carries into the fp32 sum.
template <typename Kind, int V, int N, bool Few>
[[gnu::noinline]] void dot_groups(const PanelSlice& slice, const TokenTile& tile, const Chunk& chunk,
                                  const TilePlace& place) {
  F32 sums[N][V] = {};
  if (!chunk.first) load_sums(sums, place);
  const std::int64_t group_words = slice.layout.group_inputs / Kind::word_inputs;
  const std::int64_t group_sums = slice.layout.group_inputs / 32;
  const std::int32_t* input_sums = tile.sums + place.token * tile.sums_stride;
  for (std::int64_t g = chunk.first_group; g < chunk.end_group; ++g) {
    const std::int32_t* x = tile.codes + place.token * tile.codes_stride + g * group_words * Kind::input_words;
    std::int32_t totals[N];
    I32 dots[N][V];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      totals[n] = 0;
      for (std::int64_t i = g * group_sums; i < smaller((g + 1) * group_sums, tile.sums_stride - 1); ++i)
        totals[n] += input_sums[n * tile.sums_stride + i];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) dots[n][v] = -code_bias(slice.format) * totals[n] - I32{};
    }
    each_word<V, Few>(slice.block(g) + slice.lane(place.vector) * 4, slice.word_stride(), 0, slice.layout.words_of(g),
                      place.prefetch + (slice.block(g) - slice.block(chunk.first_group)),
                      [&](const U32(&words)[V], std::int64_t w)
                          LAMELLA_BODY { Kind::multiply(dots, words, x + w * Kind::input_words, tile.codes_stride); });
    const GroupTail tail = slice.tail(g, place.vector);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const F32 scale = tail.load_scale(v), minimum = tail.load_minimum(v), zero = tail.load_zero(v);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        // Below 2^24 in a group of up to 512: exact, and so is the difference.
        F32 dot = __builtin_convertvector(dots[n][v], F32);
        const F32 total = splat(static_cast<float>(totals[n]));
        if (tail.offset == Offset::zero) dot -= zero * total;
        sums[n][v] = multiply_add(scale, dot, sums[n][v]);
        if (tail.offset == Offset::minimum) sums[n][v] = multiply_add(minimum, total, sums[n][v]);
      }
    }
  }
  if (chunk.last) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[n][v] *= tile.scales[place.token + n];
  }
  store_sums(sums, place);
}

/// The three passes behind one name, with the register tiles that suit them.
template <typename Kind>
struct Pass {
  static constexpr RegisterTile few = Kind::few, many = Kind::many;
  template <int V, int N, bool Few>
  static constexpr auto run = multiply_chunk<Kind, V, N, Few>;
};
template <typename Kind>
struct RowDots {
  static constexpr RegisterTile few = dots_few, many = dots_many;
  template <int V, int N, bool Few>
  static constexpr auto run = dot_chunk<Kind, V, N, Few>;
};
template <typename Kind>
struct GroupDots {
  static constexpr RegisterTile few = grouped_dots_few, many = grouped_dots_many;
  template <int V, int N, bool Few>
  static constexpr auto run = dot_groups<Kind, V, N, Few>;
};

/// All vectors of a slice, V at a time and then fewer, over one chunk for all tokens.
template <typename Way, int V, int MaxTokens, bool Few>
LAMELLA_INLINE void run_vectors(const PanelSlice& slice, const TokenTile& tile, const Chunk& chunk,
                                const std::byte* next, std::int64_t& vector, float* y, std::int64_t y_stride) {
  for (; vector + V <= slice.vectors(); vector += V) {
    for (std::int64_t t = 0, pass = vector; t < tile.tokens; t += MaxTokens, ++pass) {
      // Line after line of the next chunk's words, so that memory works all the time; then lines that are here.
      const std::int64_t line = smaller(pass, slice.tiles - 1) * 64;
      const TilePlace place{t, vector, y + t * y_stride + vector * lanes, y_stride, next + line};
      with_count<MaxTokens>(tile.tokens - t, [&](auto count) LAMELLA_BODY {
        Way::template run<V, decltype(count)::value, Few>(slice, tile, chunk, place);
      });
    }
  }
  // What is left is whole tiles, which V vectors that divide a tile leave none of.
  if constexpr (V > tile_outputs / lanes)
    run_vectors<Way, V / 2, MaxTokens, Few>(slice, tile, chunk, next, vector, y, y_stride);
}

/// Inputs that a chunk may have: whole groups, or whole words.
LAMELLA_INLINE std::int64_t words_a_chunk(const PanelSlice& slice, bool codes) {
  const std::int64_t by_bytes = chunk_bytes / slice.word_stride();
  const std::int64_t by_inputs = (codes ? 4 * chunk_inputs : chunk_inputs) / slice.layout.word_inputs;
  return larger(1, smaller(by_bytes, by_inputs));
}

template <typename Way>
[[gnu::noinline]] void multiply_slice(const PanelSlice& slice, const TokenTile& tile, bool codes, float* y,
                                      std::int64_t y_stride) {
  std::int64_t vector = 0;
  const PanelLayout& layout = slice.layout;
  const std::int64_t words = layout.words_of(0);
  if (tile.tokens <= Way::few.tokens) {
    const Chunk all{0, layout.groups, 0, words, true, true};
    run_vectors<Way, Way::few.vectors, Way::few.tokens, true>(slice, tile, all, slice.panel, vector, y, y_stride);
    return;
  }
  const std::int64_t at_once = words_a_chunk(slice, codes);
  if (slice.format.group != 0) {  // whole groups, also where a row has only one
    const std::int64_t step = larger(1, at_once / words);
    for (std::int64_t g = 0; g < layout.groups; g += step) {
      const std::int64_t end = smaller(g + step, layout.groups);
      const Chunk chunk{g, end, 0, words, g == 0, end == layout.groups};
      vector = 0;
      run_vectors<Way, Way::many.vectors, Way::many.tokens, false>(slice, tile, chunk, slice.block(end), vector, y,
                                                                   y_stride);
    }
  } else {
    for (std::int64_t w = 0; w < words; w += at_once) {
      const std::int64_t end = smaller(w + at_once, words);
      const Chunk chunk{0, 1, w, end, w == 0, end == words};
      vector = 0;
      run_vectors<Way, Way::many.vectors, Way::many.tokens, false>(
          slice, tile, chunk, slice.panel + end * slice.word_stride(), vector, y, y_stride);
    }
  }
}

/// Calls body(Way{}) with the way for a format: the closed table of the product's kernels.
template <typename T>
LAMELLA_INLINE void multiply_by_format(const PanelSlice& slice, const TokenTile& tile, float* y,
                                       std::int64_t y_stride) {
  const WeightFormat& format = slice.format;
  const bool codes = form_for<T>(format) == InputForm::codes, grouped = format.group != 0;
  switch (format.element) {
    case Element::f32: return multiply_slice<Pass<F32Weights>>(slice, tile, codes, y, y_stride);
    case Element::f16: return multiply_slice<Pass<F16Weights>>(slice, tile, codes, y, y_stride);
    case Element::bf16:
      if constexpr (multiplies_bf16_pairs && is_bf16<T>)
        return multiply_slice<Pass<Bf16Pairs>>(slice, tile, codes, y, y_stride);
      return multiply_slice<Pass<Bf16Weights>>(slice, tile, codes, y, y_stride);
    case Element::i8:
      if (!codes) return multiply_slice<Pass<CodeWeights<8>>>(slice, tile, codes, y, y_stride);
      if (!grouped) return multiply_slice<RowDots<CodeDots<8>>>(slice, tile, codes, y, y_stride);
      return multiply_slice<GroupDots<CodeDots<8>>>(slice, tile, codes, y, y_stride);
    case Element::i4:
      if (!codes) return multiply_slice<Pass<CodeWeights<4>>>(slice, tile, codes, y, y_stride);
      return multiply_slice<GroupDots<CodeDots<4>>>(slice, tile, codes, y, y_stride);
  }
}

/// y[t][lane] = the tile's tokens times outputs 16 * begin to 16 * end of the matrix, in fp32; lanes beyond the matrix
/// hold no number of meaning. The tile has the form that the format wants.
template <typename T>
LAMELLA_INLINE void multiply_tiles(const TokenTile& tile, const PackedMatrix& matrix, std::int64_t begin,
                                   std::int64_t end, float* y, std::int64_t y_stride) {
  const PanelLayout layout = matrix.layout();
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t panel = at / panel_tiles, first = panel * panel_tiles;
    const std::int64_t stop = smaller(end, first + panel_tiles);
    const PanelSlice slice{matrix.data + layout.panel_offset(panel),
                           layout,
                           matrix.format,
                           layout.tiles_of(panel),
                           at - first,
                           stop - first};
    multiply_by_format<T>(slice, tile, y + (at - begin) * tile_outputs, y_stride);
    at = stop;
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
