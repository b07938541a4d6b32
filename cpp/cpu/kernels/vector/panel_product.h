// The product of a tile of tokens with tiles of a packed matrix: SBI-GeMM's inner loop (the paper's III-C) and the large
// batches' alike, from the same panels.
//
// Every vector lane owns an output. Its sum is one chain along the inputs (integers: one chain a group), in order, for 1
// token and for 512, so that an output's bits depend on nothing that shares its register tile. Few tokens: one walk over
// the panel, bound by memory. More: the inputs are cut into chunks whose weights stay in the second-level cache while all
// tokens of the tile pass; between chunks the sums wait in y, stored and loaded unchanged.
#pragma once

#include <type_traits>

#include "cpu/kernels/vector/panel_slice.h"
#include "cpu/kernels/vector/weight_kinds.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Weights of a chunk, and inputs of 64 tokens, at most. They stay in the second-level cache beside the next chunk: a word of
/// four vectors meets 24 dots, longer than it takes from there. A chunk that the first level holds (16 KiB) cuts the
/// passes too short: sums are loaded and stored, and the dots' latency is waited for, once a pass (Zen 4, 512 tokens: bf16
/// 163 to 171 ms and 154 to 159 ms, fp32 345 and 320, int8 84 and 79, int4_a8 91 to 98 and 89 to 90).
constexpr std::int64_t chunk_bytes = 65536;
/// Weights of a chunk where memory bounds the pace: while the next chunk comes to the second level, no chunk should go from
/// there to the first twice (8 tokens: bf16 8.3 and 9.0 ms, int8 4.0 and 4.7). Groups of codes do not gain from that.
constexpr std::int64_t few_chunk_bytes = 16384, few_chunk_tokens = 8;
/// How far ahead of its use a line of weights is asked for where each is used once.
constexpr std::int64_t prefetch_bytes = 4096;
/// Where groups of codes want them: the scales between their words break the strides that the processor follows from the
/// second level to the first (Zen 4, bench_linear, q8_0, 1 token: medians of 9.2 and 9.0 ms, and 9.7 and 9.6 from the second).
constexpr int groups_level = first_level;

/// The inputs of the place's block of tokens.
template <typename Kind>
LAMELLA_INLINE const typename Kind::Input* inputs_of(const TokenTile& tile, const TilePlace& place) {
  return static_cast<const typename Kind::Input*>(tile.elements) + place.token * tile.row_elements;
}

/// What a pass asks for during group `g` of a chunk.
LAMELLA_INLINE LinesAhead ahead_of_group(const PanelSlice& slice, const Chunk& chunk, const TilePlace& place,
                                         std::int64_t g) {
  return {place.ahead.from + (g - chunk.first_group) * slice.block_bytes, place.ahead.step, place.ahead.second};
}

/// One register tile over one chunk, in fp32.
template <typename Kind, int V, int N, bool Few>
[[gnu::noinline]] void multiply_chunk(const PanelSlice& slice, const TokenTile& tile, const Chunk& chunk,
                                      const TilePlace& place) {
  constexpr int level = std::is_same_v<typename Kind::template Group<V>, NoGroup> ? second_level : groups_level;
  F32 sums[N][V] = {};
  if (!chunk.first) load_sums(sums, place);
  const std::int64_t group_words = slice.layout.group_inputs / Kind::word_inputs;  // of whole groups
  for (std::int64_t g = chunk.first_group; g < chunk.end_group; ++g) {
    const typename Kind::template Group<V> group(slice.tail(g, place.vector));
    const typename Kind::Input* x = inputs_of<Kind>(tile, place) + g * group_words * Kind::input_words * N;
    const std::int64_t end = smaller(chunk.end_word, slice.words_of(g));
    const LinesAhead ahead = ahead_of_group(slice, chunk, place, g);
    each_word<V, Few, level>(slice.block(g) + slice.lane(place.vector) * 4, slice.word_stride(), chunk.first_word, end,
                             ahead, [&](const U32(&words)[V], std::int64_t w) LAMELLA_BODY {
                               Kind::multiply(sums, words, x + w * Kind::input_words * N, group);
                             });
    ask<V, Few, level>(ahead, end - chunk.first_word);
  }
  store_sums(sums, place);
}

/// Whole rows of codes: the plain sum waits between chunks; the scales meet it at the end.
template <typename Kind, int V, int N, bool Few>
[[gnu::noinline]] void multiply_coded_rows(const PanelSlice& slice, const TokenTile& tile, const Chunk& chunk,
                                           const TilePlace& place) {
  using Sum = typename Kind::Sum;
  Sum sums[N][V] = {};
  if (!chunk.first) {
    load_sums(sums, place);
  } else if constexpr (Kind::exact) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[n][v] = -code_bias(slice.format) * tile.totals[place.token + n] - I32{};
  }
  const typename Kind::Input* x = inputs_of<Kind>(tile, place);
  each_word<V, Few, second_level>(slice.block(0) + slice.lane(place.vector) * 4, slice.word_stride(), chunk.first_word,
                                  chunk.end_word, place.ahead, [&](const U32(&words)[V], std::int64_t w) LAMELLA_BODY {
                                    Kind::multiply(sums, words, x + w * Kind::input_words * N);
                                  });
  if (!chunk.last) return store_sums(sums, place);
  const GroupTail tail = slice.tail(0, place.vector);
  F32 results[N][V];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      if constexpr (Kind::exact)
        results[n][v] =
            __builtin_convertvector(sums[n][v], F32) * tail.load_scale(v) * splat(tile.scales[place.token + n]);
      else results[n][v] = sums[n][v] * tail.load_scale(v);
    }
  store_sums(results, place);
}

/// What a block's tokens keep of their groups.
template <typename Kind>
LAMELLA_INLINE const auto* group_totals(const TokenTile& tile) {
  if constexpr (Kind::exact) return tile.group_sums;
  else return tile.input_sums;
}

/// dots[n][v] += a group's words times the inputs `x`.
template <typename Kind, int V, int N, bool Few>
LAMELLA_INLINE void multiply_group(typename Kind::Sum (&dots)[N][V], const std::byte* at, std::int64_t stride,
                                   std::int64_t words, const typename Kind::Input* x, const LinesAhead& ahead) {
  if constexpr (Kind::in_halves) {
    constexpr std::int64_t most = Kind::words_in_halves;
    for (std::int64_t begin = 0; begin < words; begin += most) {
      U16Pairs halves[N][V] = {};
      each_word<V, Few, groups_level>(
          at, stride, begin, smaller(begin + most, words), {ahead.from + begin * ahead.step, ahead.step, ahead.second},
          [&](const U32(&bits)[V], std::int64_t w)
              LAMELLA_BODY { Kind::multiply_in_halves(halves, bits, x + w * Kind::input_words * N); });
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) dots[n][v] = add_pair_products((U32)halves[n][v], 0x00010001u - U32{}, dots[n][v]);
    }
  } else {
    each_word<V, Few, groups_level>(at, stride, 0, words, ahead, [&](const U32(&bits)[V], std::int64_t w) LAMELLA_BODY {
      Kind::multiply(dots, bits, x + w * Kind::input_words * N);
    });
  }
}

/// Groups of codes: a plain sum a group, which its scale carries into the fp32 sum. Integer sums leave room in the
/// registers for both. Those of bf16 pairs have six cycles of latency and need sixteen registers to hide it; the fp32 sums
/// stand in y then, which costs a load and a store for every 16 or more dots (measured: 0.60 to 0.83 of the peak in place
/// of 0.50 to 0.76).
template <typename Kind, bool HasOffset, int V, int N, bool Few>
[[gnu::noinline]] void multiply_coded_groups(const PanelSlice& slice, const TokenTile& tile, const Chunk& chunk,
                                             const TilePlace& place) {
  F32 sums[N][V] = {};
  if (!Kind::exact && chunk.first) store_sums(sums, place);
  if (Kind::exact && !chunk.first) load_sums(sums, place);
  const std::int64_t group_words = slice.layout.group_inputs / Kind::word_inputs,
                     group_inputs = group_words * Kind::input_words * N;
  const typename Kind::Input* x = inputs_of<Kind>(tile, place) + chunk.first_group * group_inputs;
  const auto* totals = group_totals<Kind>(tile) + place.token * tile.groups + chunk.first_group * N;
  for (std::int64_t g = chunk.first_group; g < chunk.end_group; ++g, x += group_inputs, totals += N) {
    typename Kind::Sum dots[N][V] = {};
    if constexpr (Kind::exact && !HasOffset) {
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) dots[n][v] = totals[n] - I32{};
    }
    const LinesAhead ahead = ahead_of_group(slice, chunk, place, g);
    const std::int64_t words = slice.words_of(g);
    multiply_group<Kind, V, N, Few>(dots, slice.block(g) + slice.lane(place.vector) * 4, slice.word_stride(), words, x,
                                    ahead);
    ask<V, Few, groups_level>(ahead, words);
    const GroupTail tail = slice.tail(g, place.vector);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const F32 scale = load(reinterpret_cast<const Fp16*>(tail.scales) + std::int64_t{v} * lanes);
      if constexpr (HasOffset && !Kind::exact) {
        const F32 minimum = tail.load_minimum(v);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          float* y = place.y + n * place.y_stride + std::int64_t{v} * lanes;
          store(y, multiply_add(minimum, splat(totals[n]), multiply_add(scale, dots[n][v], load(y))));
        }
      } else if constexpr (HasOffset) {
        const F32 minimum = tail.load_minimum(v), zero = tail.load_zero(v);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          // Below 2^24 in a group of up to 512: exact, and so is the difference.
          F32 dot = __builtin_convertvector(dots[n][v], F32);
          const F32 total = splat(static_cast<float>(totals[n]));
          if (tail.offset == Offset::zero) dot -= zero * total;
          sums[n][v] = multiply_add(scale, dot, sums[n][v]);
          if (tail.offset == Offset::minimum) sums[n][v] = multiply_add(minimum, total, sums[n][v]);
        }
      } else {
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          const F32 dot = __builtin_convertvector(dots[n][v], F32);
          float* y = place.y + n * place.y_stride + std::int64_t{v} * lanes;
          if constexpr (Kind::exact) sums[n][v] = multiply_add(scale, dot, sums[n][v]);
          else store(y, multiply_add(scale, dot, load(y)));
        }
      }
    }
  }
  if constexpr (Kind::exact) {
    if (chunk.last) {
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sums[n][v] *= tile.scales[place.token + n];
    }
    store_sums(sums, place);
  }
}

/// The passes behind one name, with the register tiles that suit them.
template <typename Kind>
struct Plain {
  using Weights = Kind;
  static constexpr RegisterTiles tiles = Kind::tiles;
  template <int V, int N, bool Few>
  static constexpr auto run = multiply_chunk<Kind, V, N, Few>;
};
template <typename Kind>
struct CodedRows {
  using Weights = Kind;
  static constexpr RegisterTiles tiles = Kind::row_tiles;
  template <int V, int N, bool Few>
  static constexpr auto run = multiply_coded_rows<Kind, V, N, Few>;
};
template <typename Kind, bool HasOffset>
struct CodedGroups {
  using Weights = Kind;
  static constexpr RegisterTiles tiles = Kind::group_tiles;
  template <int V, int N, bool Few>
  static constexpr auto run = multiply_coded_groups<Kind, HasOffset, V, N, Few>;
};

/// What pass number `done` of `all` over a chunk asks for: its part of the next chunk, so that every line that the slice
/// covers is asked for, once but where there are more passes than lines, and memory works all the time.
LAMELLA_INLINE LinesAhead ahead_of_pass(const PanelSlice& slice, const std::byte* next, std::int64_t done,
                                        std::int64_t all) {
  const std::int64_t lines = slice.end - slice.begin, step = all < lines ? 128 : 64, second = step - 64;
  const std::int64_t first = slice.begin * 64 + smaller(done * step, larger(lines * 64 - step, 0));
  return {next + first, slice.word_stride(), second};
}

/// The vectors of a slice, V at a time and then fewer, over one chunk for all blocks of tokens.
template <typename Way, int V, int MaxTokens, bool Few>
LAMELLA_INLINE void run_vectors(const PanelSlice& slice, const TokenTile& tile, const Chunk& chunk,
                                const std::byte* next, std::int64_t& vector, float* y, std::int64_t y_stride) {
  const TokenBlocks blocks(tile.tokens, MaxTokens);
  const std::int64_t all_passes = (slice.vectors() + V - 1) / V * blocks.count;
  for (; vector + V <= slice.vectors(); vector += V) {
    for (std::int64_t t = 0, block = 0; block < blocks.count; ++block) {
      const std::int64_t count = blocks.tokens(block), done = vector / V * blocks.count + block;
      const std::byte* soon = slice.block(chunk.first_group) + slice.lane(vector) * 4 + prefetch_bytes;
      const LinesAhead ahead =
          Few ? LinesAhead{soon, slice.word_stride(), 0} : ahead_of_pass(slice, next, done, all_passes);
      const TilePlace place{t, vector, y + t * y_stride + vector * lanes, y_stride, ahead};
      with_count<MaxTokens>(count, [&](auto tokens) LAMELLA_BODY {
        Way::template run<V, decltype(tokens)::value, Few>(slice, tile, chunk, place);
      });
      t += count;
    }
  }
  // What is left is whole tiles, which V vectors that divide a tile leave none of.
  if constexpr (V > tile_outputs / lanes)
    run_vectors<Way, V / 2, MaxTokens, Few>(slice, tile, chunk, next, vector, y, y_stride);
}

/// Words that a chunk may have.
template <typename Way>
LAMELLA_INLINE std::int64_t words_a_chunk(const PanelSlice& slice, std::int64_t tokens) {
  using Weights = typename Way::Weights;
  constexpr std::int64_t inputs = 64 * Weights::input_words * std::int64_t{sizeof(typename Weights::Input)};
  const bool few = slice.format.group == 0 && tokens <= few_chunk_tokens;
  return larger(1, (few ? few_chunk_bytes : chunk_bytes) / larger(slice.word_stride(), inputs));
}

template <typename Way>
[[gnu::noinline]] void multiply_slice(const PanelSlice& slice, const TokenTile& tile, float* y, std::int64_t y_stride) {
  static_assert(Way::tiles.few.tokens <= block_tokens && Way::tiles.many.tokens <= block_tokens);
  std::int64_t vector = 0;
  const PanelLayout& layout = slice.layout;
  const std::int64_t words = layout.words_of(0);
  if (tile.whole_panels) {
    const Chunk all{0, layout.groups, 0, words, true, true};
    run_vectors<Way, Way::tiles.few.vectors, Way::tiles.few.tokens, true>(slice, tile, all, slice.panel, vector, y,
                                                                          y_stride);
    return;
  }
  const std::int64_t at_once = words_a_chunk<Way>(slice, tile.tokens);
  if (slice.format.group != 0) {  // whole groups, also where a row has only one
    const std::int64_t step = larger(1, at_once / words);
    for (std::int64_t g = 0; g < layout.groups; g += step) {
      const std::int64_t end = smaller(g + step, layout.groups);
      const Chunk chunk{g, end, 0, words, g == 0, end == layout.groups};
      vector = 0;
      run_vectors<Way, Way::tiles.many.vectors, Way::tiles.many.tokens, false>(slice, tile, chunk, slice.block(end),
                                                                               vector, y, y_stride);
    }
  } else {
    for (std::int64_t w = 0; w < words; w += at_once) {
      const std::int64_t end = smaller(w + at_once, words);
      const Chunk chunk{0, 1, w, end, w == 0, end == words};
      vector = 0;
      run_vectors<Way, Way::tiles.many.vectors, Way::tiles.many.tokens, false>(
          slice, tile, chunk, slice.panel + end * slice.word_stride(), vector, y, y_stride);
    }
  }
}

template <typename T, int Bits>
LAMELLA_INLINE void multiply_codes_by_format(const PanelSlice& slice, const TokenTile& tile, float* y,
                                             std::int64_t y_stride) {
  const bool grouped = slice.format.group != 0, offset = slice.format.offset != Offset::none;
  switch (form_for<T>(slice.format)) {
    case InputForm::codes:
    case InputForm::wide_codes:
      if constexpr (Bits == 8) {
        if (!grouped) return multiply_slice<CodedRows<CodeDots<Bits>>>(slice, tile, y, y_stride);
      }
      if (offset) return multiply_slice<CodedGroups<CodeDots<Bits>, true>>(slice, tile, y, y_stride);
      return multiply_slice<CodedGroups<CodeDots<Bits>, false>>(slice, tile, y, y_stride);
    case InputForm::pairs:
    case InputForm::crossed_pairs:
      if constexpr (multiplies_bf16_pairs && is_bf16<T>) {
        if constexpr (Bits == 8) {
          if (!grouped) return multiply_slice<CodedRows<CodePairs<Bits, true>>>(slice, tile, y, y_stride);
        }
        if (offset) return multiply_slice<CodedGroups<CodePairs<Bits, false>, true>>(slice, tile, y, y_stride);
        return multiply_slice<CodedGroups<CodePairs<Bits, true>, false>>(slice, tile, y, y_stride);
      }
      [[fallthrough]];
    case InputForm::values: return multiply_slice<Plain<CodeWeights<Bits>>>(slice, tile, y, y_stride);
  }
}

/// Calls body(Way{}) with the way for a format: the closed table of the product's kernels.
template <typename T>
LAMELLA_INLINE void multiply_by_format(const PanelSlice& slice, const TokenTile& tile, float* y,
                                       std::int64_t y_stride) {
  const WeightFormat& format = slice.format;
  switch (format.element) {
    case Element::f32: return multiply_slice<Plain<F32Weights>>(slice, tile, y, y_stride);
    case Element::f16: return multiply_slice<Plain<F16Weights>>(slice, tile, y, y_stride);
    case Element::bf16:
      if constexpr (multiplies_bf16_pairs && is_bf16<T>)
        return multiply_slice<Plain<Bf16Pairs>>(slice, tile, y, y_stride);
      return multiply_slice<Plain<Bf16Weights>>(slice, tile, y, y_stride);
    case Element::i8: return multiply_codes_by_format<T, 8>(slice, tile, y, y_stride);
    case Element::i4: return multiply_codes_by_format<T, 4>(slice, tile, y, y_stride);
  }
}

/// The register tiles of a format's products.
template <typename T>
LAMELLA_INLINE constexpr RegisterTiles tiles_for(const WeightFormat& format) {
  const bool grouped = format.group != 0;
  switch (form_for<T>(format)) {
    case InputForm::codes:
      if (sums_in_halves) return grouped_halves_tiles;
      [[fallthrough]];
    case InputForm::wide_codes: return grouped ? grouped_dots_tiles : dots_tiles;
    case InputForm::pairs:
    case InputForm::crossed_pairs:
      if (format.element == Element::bf16) return plain_tiles;
      return grouped ? grouped_code_pairs_tiles : code_pairs_tiles;
    case InputForm::values: break;
  }
  return is_quantised(format) || format.element == Element::f16 ? decoded_tiles : plain_tiles;
}

/// contracts.h.
template <typename T>
LinearWay linear_way(const WeightFormat& format, std::int64_t tokens, bool sbi_gemm) {
  const Walk walk(tiles_for<T>(format), tokens, sbi_gemm);
  LinearWay way{.operands = is_quantised(format) ? "codes as fp32" : "fp32",
                .arithmetic = Arithmetic::f32,
                .outputs = std::int64_t{walk.tile.vectors} * lanes,
                .tokens = TokenBlocks(tokens, walk.tile.tokens).tokens(0),
                .whole_panels = walk.whole_panels};
  switch (form_for<T>(format)) {
    case InputForm::values: break;
    case InputForm::pairs:
    case InputForm::crossed_pairs:
      way.operands = is_quantised(format) ? "codes as bf16 pairs" : "bf16 pairs";
      way.arithmetic = Arithmetic::bf16;
      break;
    case InputForm::codes:
    case InputForm::wide_codes:
      way.operands = "int8 dots";
      way.arithmetic = Arithmetic::int8;
      break;
  }
  return way;
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
    const std::int64_t tiles = layout.tiles_of(panel);
    const PanelSlice slice{.panel = matrix.data + layout.panel_offset(panel),
                           .layout = layout,
                           .format = matrix.format,
                           .tiles = tiles,
                           .begin = at - first,
                           .end = stop - first,
                           .block_bytes = layout.block_bytes(0, tiles),
                           .group_words = layout.words_of(0),
                           .last_words = layout.words_of(layout.groups - 1)};
    multiply_by_format<T>(slice, tile, y + (at - begin) * tile_outputs, y_stride);
    at = stop;
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
