// Values: what a tile's queries add up, each weighted by its own weights.
#pragma once

#include "cpu/kernels/vector/attention_weights.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// What the queries of a register tile add to their sums: values of positions [begin, end) of a part.
template <typename Product>
struct ValueRun {
  const PlaneStream& stream;
  std::int64_t padded;  // elements of a row of values
  const typename Product::Form* weights;  // of the first query
  const DigitRow* digits;  // of the weights, where they have two
  float* sums;  // of the first query; `padded` apart
  std::int64_t begin = 0, end = 0;
};

/// The run of word `w` in its block, from place `d` of the head on.
template <typename Product>
LAMELLA_INLINE WordRun<1> words_of(const ValueRun<Product>& a, std::int64_t w, std::int64_t d) {
  constexpr std::int64_t block_words = kv_block_tokens / Product::word;
  const std::int64_t at = w - a.stream.first / Product::word, stride = a.padded * lane_bytes<Product>;
  const std::int64_t offset = at % block_words * stride + d * lane_bytes<Product>;
  const int block = static_cast<int>(at / block_words);
  return {{a.stream.value(block) + offset}, {a.stream.ahead_of_value(block) + offset}, stride};
}

/// Words of values one behind the other, through the blocks of a part.
template <typename Product, int Rows, int Vectors>
LAMELLA_INLINE void multiply_values(RegisterSums<Product, Rows, Vectors>& sums, const ValueRun<Product>& a,
                                    std::int64_t d, std::int64_t begin_word, std::int64_t end_word) {
  constexpr std::int64_t block_words = kv_block_tokens / Product::word;
  const std::int64_t first_word = a.stream.first / Product::word;
  for (std::int64_t w = begin_word; w < end_word;) {
    const std::int64_t in_block = (w - first_word) % block_words, count = smaller(end_word - w, block_words - in_block);
    multiply_words<Product, Rows, Vectors, 1, Product::word_forms, weight_row<Product>>(
        sums, words_of(a, w, d), count, a.weights + w * Product::word_forms);
    w += count;
  }
}

/// Places [d, d + Vectors * lanes) of the head. A word of which only a half is within [begin, end) loses the other:
/// what it holds may be no number.
template <typename Product, int Rows, int Vectors>
[[gnu::noinline]] void add_values(const ValueRun<Product>& a, std::int64_t d) {
  constexpr std::int64_t word = Product::word;
  RegisterSums<Product, Rows, Vectors> sums;
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sums.of[r][v] = load(a.sums + r * a.padded + d + std::int64_t{v} * lanes);
  const auto add_half = [&](std::int64_t w, std::uint32_t mask) LAMELLA_BODY {
    if constexpr (word == 2) {
      const std::byte* from = words_of(a, w, d).from[0];
      typename Product::Words words[Vectors];
      for (int v = 0; v < Vectors; ++v) words[v] = Product::load_words(from + v * vector_bytes<Product>, mask);
      multiply_word<Product, Rows, Vectors, weight_row<Product>>(sums, words, a.weights + w * Product::word_forms);
    }
  };
  if (a.begin % word != 0) add_half(a.begin / word, 0xffff0000U);
  multiply_values(sums, a, d, (a.begin + word - 1) / word, a.end / word);
  if (a.end % word != 0) add_half(a.end / word, 0x0000ffffU);
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) store(a.sums + r * a.padded + d + std::int64_t{v} * lanes, sums.of[r][v]);
}

/// The same in two digits, for all words of the part: the weights of what a query does not see are zero.
template <int Rows, int Vectors>
[[gnu::noinline]] void add_code_values(const ValueRun<Codes>& a, std::int64_t d) {
  RegisterSums<Codes, 2 * Rows, Vectors> sums;
  start_digits(sums, a.digits);
  multiply_values(sums, a, d, a.stream.first / Codes::word, a.stream.end() / Codes::word);
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v)
      store(a.sums + r * a.padded + d + std::int64_t{v} * lanes,
            join_digits(sums.of[2 * r][v], sums.of[2 * r + 1][v]) * a.digits[r].scale);
}

/// Calls add(Constant<Vectors>, d) for register tiles that cover a head of `padded` places.
template <typename Add>
LAMELLA_INLINE void each_place(std::int64_t padded, Add add) {
  constexpr int most = attention_tile.vectors;
  std::int64_t d = 0;
  for (; d + std::int64_t{most} * lanes <= padded; d += std::int64_t{most} * lanes) add(Constant<most>{}, d);
  if constexpr (most > kv_block_vectors) {  // heads are padded to 16 places
    if (d + 32 <= padded) {
      add(Constant<2 * kv_block_vectors>{}, d);
      d += 32;
    }
    if (d < padded) add(Constant<kv_block_vectors>{}, d);
  }
}

/// `run` moved to row `row` of its tile and to positions [begin, end), for `Rows` rows.
template <typename Product, int Rows>
LAMELLA_INLINE void add_values_of(ValueRun<Product> run, int row, std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  run.weights += row * part_tokens;
  run.sums += row * run.padded;
  run.begin = begin;
  run.end = end;
  each_place(run.padded, [&](auto vectors, std::int64_t d)
                             LAMELLA_BODY { add_values<Product, Rows, decltype(vectors)::value>(run, d); });
}

/// Values of a register tile: what all its rows see together, and the rest row by row, before and after it.
template <typename Product, int Rows>
LAMELLA_INLINE void tile_values(const ValueRun<Product>& run, const PartSpan* spans) {
  if constexpr (Product::digits == 2) {
    each_place(run.padded, [&](auto vectors, std::int64_t d)
                               LAMELLA_BODY { add_code_values<Rows, decltype(vectors)::value>(run, d); });
  } else {
    constexpr std::int64_t word = Product::word;
    std::int64_t begin = spans[0].begin, end = spans[0].end;
    bool same = true;
    for (int r = 1; r < Rows; ++r) {
      same = same && spans[r].begin == spans[0].begin && spans[r].end == spans[0].end;
      begin = larger(begin, spans[r].begin);
      end = smaller(end, spans[r].end);
    }
    if (same) return add_values_of<Product, Rows>(run, 0, begin, end);
    // A word is added at once by all who see both of its elements, or else by each alone.
    begin = (begin + word - 1) / word * word;
    end = larger(begin, end / word * word);
    for (int r = 0; r < Rows; ++r) add_values_of<Product, 1>(run, r, spans[r].begin, smaller(begin, spans[r].end));
    add_values_of<Product, Rows>(run, 0, begin, end);
    for (int r = 0; r < Rows; ++r) add_values_of<Product, 1>(run, r, larger(end, spans[r].begin), spans[r].end);
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
