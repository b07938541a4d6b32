// Products of a few rows (queries, or a query's weights of values) with the words of K or V planes.
//
// Every lane owns a key, or a place of the head, and has one chain of sums along the words: what it sees does not
// depend on how many rows and vectors share its register tile. A kind of product says what a word is and how it is
// multiplied.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/rounding.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Rows in fp32 times words that are widened to fp32.
template <typename Element>
struct Widened {
  using Stored = Element;
  using Sum = F32;
  using Form = float;  // what rows are multiplied in
  static constexpr int word = 1;  // elements of a lane's word: M
  static constexpr int word_forms = 1;  // Forms of a row for a word
  static constexpr int digits = 1;  // rows of forms of a row
  static constexpr bool rounds_weights = false;
  struct Words {
    F32 value;
  };
  LAMELLA_INLINE static Words load_words(const std::byte* from) {
    return {load(reinterpret_cast<const Element*>(from))};
  }
  /// The forms of `count` elements of a row.
  LAMELLA_INLINE static void make_forms(const float* row, std::int64_t count, Form* forms) {
    __builtin_memcpy(forms, row, static_cast<std::size_t>(count) * sizeof *forms);
  }
  LAMELLA_INLINE static F32 add(F32 sum, const Words& words, const Form* form) {
    return multiply_add(words.value, splat(*form), sum);
  }
};

/// Two bf16 a word: the first moved up, the second masked.
template <>
struct Widened<Bf16> {
  using Stored = Bf16;
  using Sum = F32;
  using Form = float;
  static constexpr int word = 2;
  static constexpr int word_forms = 2;
  static constexpr int digits = 1;
  static constexpr bool rounds_weights = false;
  struct Words {
    F32 first, second;
  };
  LAMELLA_INLINE static Words load_words(const std::byte* from, std::uint32_t mask = ~0U) {
    const U32 bits = load_bits<U32>(from) & mask;
    return {(F32)(bits << 16), (F32)(bits & 0xffff0000U)};
  }
  LAMELLA_INLINE static void make_forms(const float* row, std::int64_t count, Form* forms) {
    __builtin_memcpy(forms, row, static_cast<std::size_t>(count) * sizeof *forms);
  }
  LAMELLA_INLINE static F32 add(F32 sum, const Words& words, const Form* form) {
    return multiply_add(words.second, splat(form[1]), multiply_add(words.first, splat(form[0]), sum));
  }
};

/// Two bf16 a word, multiplied by two bf16 with one instruction, where the set has it. Queries are bf16 already;
/// weights of values are rounded. A template, so that sets without the instruction need not compile it.
template <typename Bits>
struct PairsOf {
  using Stored = Bf16;
  using Sum = F32;
  using Form = std::uint32_t;
  static constexpr int word = 2;
  static constexpr int word_forms = 1;
  static constexpr int digits = 1;
  static constexpr bool rounds_weights = true;
  struct Words {
    Bits bits;
  };
  LAMELLA_INLINE static Words load_words(const std::byte* from, std::uint32_t mask = ~0U) {
    return {load_bits<Bits>(from) & mask};
  }
  LAMELLA_INLINE static void make_forms(const float* row, std::int64_t count, Form* forms) {
    store_row(reinterpret_cast<Bf16*>(forms), row, count);
  }
  LAMELLA_INLINE static F32 add(F32 sum, const Words& words, const Form* form) {
    return add_pair_of_bf16(sum, words.bits, *form);
  }
  /// 2 * lanes weights as bf16, and the sum of them as they are then.
  template <typename V>
  LAMELLA_INLINE static Bits round(V first, V second) {
    return bf16_pairs(first, second);
  }
  LAMELLA_INLINE static F32 add_rounded(F32 sum, Bits pairs) {
    constexpr std::uint32_t ones = 0x3f803f80U;
    return add_pair_of_bf16(sum, pairs, ones);
  }
};
using Pairs = PairsOf<U32>;

/// Four int8 codes a word. Rows are rounded to whole numbers of two signed digits to the base 256, which makes them two
/// rows of forms; the products are exact integers, so that their order does not matter. (One digit, as for the inputs
/// of int8 linears, would add an error as large as that of the stored codes; two add 2^-16 of a row's largest number.)
struct Codes {
  using Stored = std::uint8_t;
  using Sum = I32;
  using Form = std::int32_t;
  static constexpr int word = 4;
  static constexpr int word_forms = quad_words<8>;
  static constexpr int digits = 2;
  static constexpr bool rounds_weights = false;
  struct Words {
    U32 bits;
  };
  LAMELLA_INLINE static Words load_words(const std::byte* from) { return {load_bits<U32>(from)}; }
  LAMELLA_INLINE static I32 add(I32 sum, const Words& words, const Form* form) {
    return add_dots<1>(sum, words.bits, form);
  }
};

/// A row in two digits: numbers are scale * (256 * high + low). `start` is what a sum begins with, for bytes hold code
/// + 128.
struct DigitRow {
  float scale;
  std::int32_t start[2];  // of the high and the low digit's sums
};

using Digits = std::int8_t __attribute__((vector_size(lanes)));

constexpr float most_in_digits = 32639.0F;  // 127 * 256 + 127

/// Rounds `width` numbers (a multiple of lanes) to forms: those of the low digit stand low_forms behind those of the high
/// one.
LAMELLA_INLINE DigitRow make_digits(const float* row, std::int64_t width, const Rounding& rounding, Codes::Form* forms,
                                    std::int64_t low_forms) {
  I32 sums[2] = {};
  for (std::int64_t i = 0; i < width; i += lanes) {
    const I32 number = rounding.round(load(row + i));
    const I32 low = ((number + 128) & 255) - 128, high = (number - low) >> 8;
    sums[0] += high;
    sums[1] += low;
    const Digits digits[2] = {__builtin_convertvector(high, Digits), __builtin_convertvector(low, Digits)};
    for (int digit = 0; digit < 2; ++digit) {
      Codes::Form* to = forms + digit * low_forms + i / 4 * quad_words<8>;
      std::int8_t codes[lanes];
      __builtin_memcpy(codes, &digits[digit], sizeof codes);
      if constexpr (quad_words<8> == 1) {  // a word is four codes one behind the other
        __builtin_memcpy(to, codes, sizeof codes);
      } else {
        for (int quad = 0; quad < lanes; quad += 4)
          pack_quad(codes + quad, to + std::int64_t{quad / 4} * quad_words<8>);
      }
    }
  }
  DigitRow made{rounding.scale, {0, 0}};
  for (int digit = 0; digit < 2; ++digit)
    made.start[digit] =
        -128 * fold_lanes(sums[digit], [](std::int32_t x, std::int32_t y) LAMELLA_BODY { return x + y; });
  return made;
}

/// What the sums of a row's two digits stand for, but for its scale. Whole numbers below 2^24: exact, up to the last
/// sum.
LAMELLA_INLINE F32 join_digits(I32 high, I32 low) {
  return __builtin_convertvector(high, F32) * 256.0F + __builtin_convertvector(low, F32);
}

/// A row of `dim` floats, zeros behind them, in chunks of `step` elements whose forms are `chunk` apart; the low
/// digits' stand attention_query_chunk behind the high ones'.
LAMELLA_INLINE DigitRow place_codes(const float* row, std::int64_t dim, Codes::Form* forms, std::int64_t step,
                                    std::int64_t chunk) {
  const std::int64_t padded = kv_padded(dim);
  const Rounding rounding(magnitudes_of(row, padded), most_in_digits);
  DigitRow all{0.0F, {0, 0}};
  for (std::int64_t d = 0; d < padded; d += step, forms += chunk) {
    const DigitRow part = make_digits(row + d, smaller(step, padded - d), rounding, forms, attention_query_chunk);
    all = {part.scale, {all.start[0] + part.start[0], all.start[1] + part.start[1]}};
  }
  return all;
}

/// Bytes of a word in one lane, and of a vector of them.
template <typename Product>
constexpr std::int64_t lane_bytes = Product::word * static_cast<std::int64_t>(sizeof(typename Product::Stored));
template <typename Product>
constexpr std::int64_t vector_bytes = lane_bytes<Product> * lanes;

template <typename Product, int Rows, int Vectors>
struct RegisterSums {
  typename Product::Sum of[Rows][Vectors];
};

/// Sums of rows in two digits begin with what takes the codes' bias off.
template <int DigitRows, int Vectors>
LAMELLA_INLINE void start_digits(RegisterSums<Codes, DigitRows, Vectors>& sums, const DigitRow* rows) {
#pragma GCC unroll 8
  for (int r = 0; r < DigitRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sums.of[r][v] = I32{} + rows[r / 2].start[r % 2];
}

/// Where a run of words begins, in as many planes as the vectors are spread over, and what to fetch ahead of its use:
/// the same places of planes that come later.
template <int Planes>
struct WordRun {
  const std::byte *from[Planes], *ahead[Planes];
  std::int64_t stride;  // bytes from a word of a lane to its next

  LAMELLA_INLINE void skip(std::int64_t words) {
    for (int p = 0; p < Planes; ++p) {
      from[p] += words * stride;
      ahead[p] += words * stride;
    }
  }
};

template <typename Product, int Rows, int Vectors, int RowForms>
LAMELLA_INLINE void multiply_word(RegisterSums<Product, Rows, Vectors>& sums,
                                  const typename Product::Words (&words)[Vectors],
                                  const typename Product::Form* forms) {
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v)
      sums.of[r][v] = Product::add(sums.of[r][v], words[v], forms + std::int64_t{r} * RowForms);
}

/// sums[r][v] += row r times vector v, `count` words on. Forms of a row's neighbouring words are StepForms apart, those
/// of neighbouring rows RowForms: constants, which leaves registers for the planes.
template <typename Product, int Rows, int Vectors, int Planes, int StepForms, int RowForms>
LAMELLA_INLINE void multiply_words(RegisterSums<Product, Rows, Vectors>& sums, const WordRun<Planes>& run,
                                   std::int64_t count, const typename Product::Form* forms) {
  constexpr int plane_vectors = Vectors / Planes;
  const std::int64_t end = count * run.stride;
  for (std::int64_t at = 0; at < end; at += run.stride, forms += StepForms) {
    typename Product::Words words[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      const std::int64_t place = at + v % plane_vectors * vector_bytes<Product>;
      words[v] = Product::load_words(run.from[v / plane_vectors] + place);
      if (v % plane_vectors * vector_bytes<Product> % 64 == 0) __builtin_prefetch(run.ahead[v / plane_vectors] + place);
    }
    multiply_word<Product, Rows, Vectors, RowForms>(sums, words, forms);
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
