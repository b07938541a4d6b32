// Scores: a tile's queries times the keys of a part, in units of log2 e.
#pragma once

#include "cpu/kernels/vector/attention_tile.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// The forms of a register tile's queries stand [chunk][query][query_chunk]: the next query's are a constant away.
constexpr std::int64_t query_chunk = attention_query_chunk;

template <typename Product>
constexpr std::int64_t chunk_elements = query_chunk / Product::word_forms * Product::word;

/// Puts a query of `dim` floats, zeros behind them, into place `place` of a register tile's forms.
template <typename Product>
LAMELLA_INLINE DigitRow place_query(const float* row, std::int64_t dim, typename Product::Form* forms, int place) {
  constexpr std::int64_t step = chunk_elements<Product>, chunk = query_chunk * register_rows<Product> * Product::digits;
  if constexpr (Product::digits == 2) {
    return place_codes(row, dim, forms + std::int64_t{2} * place * query_chunk, step, chunk);
  } else {
    for (std::int64_t d = 0; d < dim; d += step, forms += chunk)
      Product::make_forms(row + d, smaller(step, kv_padded(dim - d)), forms + place * query_chunk);
    return {};
  }
}

/// Scores of Rows queries with the keys of `Blocks` blocks of the stream.
template <typename Product, int Rows, int Blocks>
[[gnu::noinline]] void score_blocks(const PlaneStream& stream, int block, std::int64_t words,
                                    const typename Product::Form* forms, const DigitRow* digits, float factor,
                                    float* scores) {
  constexpr int vectors = Blocks * kv_block_vectors;
  WordRun<Blocks> run;
  run.stride = kv_block_tokens * lane_bytes<Product>;
  for (int b = 0; b < Blocks; ++b) {
    run.from[b] = stream.key(block + b);
    run.ahead[b] = stream.ahead_of_key(block + b);
  }
  RegisterSums<Product, Rows * Product::digits, vectors> sums = {};
  if constexpr (Product::digits == 2) start_digits(sums, digits);
  constexpr std::int64_t chunk_words = query_chunk / Product::word_forms;
  for (; words > 0; words -= chunk_words, forms += query_chunk * register_rows<Product> * Product::digits) {
    multiply_words<Product, Rows * Product::digits, vectors, Blocks, Product::word_forms, query_chunk>(
        sums, run, smaller(words, chunk_words), forms);
    run.skip(chunk_words);
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      float* to = scores + r * part_tokens + std::int64_t{v} * lanes;
      if constexpr (Product::digits == 2) {
        const float* scales =
            stream.key_scales(block + v / kv_block_vectors) + std::int64_t{v % kv_block_vectors} * lanes;
        store(to, join_digits(sums.of[2 * r][v], sums.of[2 * r + 1][v]) * (digits[r].scale * factor) * load(scales));
      } else {
        store(to, sums.of[r][v] * factor);
      }
    }
}

template <typename Product>
LAMELLA_INLINE void part_scores(const PlaneStream& stream, int rows, std::int64_t dim, float factor,
                                const DigitRow* digits, const AttentionScratch& scratch) {
  const std::int64_t words = (dim + Product::word - 1) / Product::word;
  const auto* forms = reinterpret_cast<const typename Product::Form*>(scratch.queries);
  int block = 0;
  const auto all_rows = [&](auto blocks) LAMELLA_BODY {
    for (int r = 0; r < rows; r += register_rows<Product>)
      with_count<register_rows<Product>>(rows - r, [&](auto count) LAMELLA_BODY {
        score_blocks<Product, decltype(count)::value, decltype(blocks)::value>(
            stream, block, words, forms + r * scratch.query_forms, digits + r, factor,
            scratch.scores + r * part_tokens + stream.first + block * kv_block_tokens);
      });
    block += decltype(blocks)::value;
  };
  while (block + tile_blocks <= stream.blocks) all_rows(Constant<tile_blocks>{});
  if constexpr (tile_blocks > 2)
    if (block + 2 <= stream.blocks) all_rows(Constant<2>{});
  if constexpr (tile_blocks > 1)
    if (block < stream.blocks) all_rows(Constant<1>{});
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
