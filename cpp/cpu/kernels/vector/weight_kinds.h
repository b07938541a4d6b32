// What one 32-bit word of each lane means, format by format: how its numbers meet the inputs.
//
// Every kind has
//   word_inputs            inputs of a word (memory/panels.h)
//   input_words            elements of the tile's form that a word meets
//   Input                  an element of that form
//   Group<V>               what a group's codes need to become numbers, for V vectors of lanes
//   multiply(sums, words, x, group)   sums[n][v] += the words of vector v times the inputs of token n, element i of which is
//                          x[i * N + n] (token_tile.h)
// Numbers are made exactly as unpack_row() makes them and meet the inputs one after the other, each in one multiply_add: a
// weight-only format gives the same bits as fp32 weights of the same values. Codes that meet int8 inputs or pairs of bf16
// (CodeDots, CodePairs) are summed as they are, and the scale of a group meets its sum.
#pragma once

#include "cpu/kernels/vector/group_tail.h"
#include "cpu/kernels/vector/token_tile.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Adds number(word, i) * x[n][i] for the inputs i of a word, in order.
template <int Inputs, int V, int N, typename Number>
LAMELLA_INLINE void multiply_numbers(F32 (&sums)[N][V], const float* x, Number number) {
#pragma GCC unroll 8
  for (int i = 0; i < Inputs; ++i) {
    F32 numbers[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) numbers[v] = number(v, i);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const F32 value = splat(x[std::int64_t{i} * N + n]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[n][v] = multiply_add(numbers[v], value, sums[n][v]);
    }
  }
}

struct NoGroup {
  LAMELLA_INLINE explicit NoGroup(const GroupTail&) {}
};

struct F32Weights {
  static constexpr int word_inputs = 1, input_words = 1;
  static constexpr InputForm form = InputForm::values;
  static constexpr RegisterTiles tiles = plain_tiles;
  using Input = float;
  template <int V>
  using Group = NoGroup;

  template <int V, int N>
  LAMELLA_INLINE static void multiply(F32 (&sums)[N][V], const U32 (&words)[V], const float* x, const NoGroup&) {
    multiply_numbers<1>(sums, x, [&](int v, int) LAMELLA_BODY { return (F32)words[v]; });
  }
};

struct Bf16Weights {
  static constexpr int word_inputs = 2, input_words = 2;
  static constexpr InputForm form = InputForm::values;
  static constexpr RegisterTiles tiles = plain_tiles;
  using Input = float;
  template <int V>
  using Group = NoGroup;

  template <int V, int N>
  LAMELLA_INLINE static void multiply(F32 (&sums)[N][V], const U32 (&words)[V], const float* x, const NoGroup&) {
    multiply_numbers<2>(sums, x, [&](int v, int i) LAMELLA_BODY {
      return i == 0 ? (F32)(words[v] << 16) : (F32)(words[v] & 0xffff0000u);
    });
  }
};

/// bf16 weights and bf16 inputs, where the set multiplies such pairs.
struct Bf16Pairs {
  static constexpr int word_inputs = 2, input_words = 1;
  static constexpr InputForm form = InputForm::pairs;
  static constexpr RegisterTiles tiles = plain_tiles;
  using Input = std::uint32_t;
  template <int V>
  using Group = NoGroup;

  template <int V, int N>
  LAMELLA_INLINE static void multiply(F32 (&sums)[N][V], const U32 (&words)[V], const std::uint32_t* x,
                                      const NoGroup&) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      std::uint32_t pair;  // a row of bf16 begins at any of them
      __builtin_memcpy(&pair, x + n, sizeof pair);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[n][v] = add_pair_of_bf16(sums[n][v], words[v], pair);
    }
  }
};

struct F16Weights {
  static constexpr int word_inputs = 2, input_words = 2;
  static constexpr InputForm form = InputForm::values;
  static constexpr RegisterTiles tiles = decoded_tiles;
  using Input = float;
  template <int V>
  using Group = NoGroup;

  /// Weights are finite: loading refuses the rest. A subnormal is a whole number of 2^-24.
  LAMELLA_INLINE static F32 number(U32 bits) {
    const U32 magnitude = (bits & 0x7fffu) << 13;
    const U32 small = (U32)(__builtin_convertvector((I32)(bits & 0x3ffu), F32) * 0x1p-24F);
    const U32 finite = (I32)magnitude < 0x00800000 ? small : magnitude + (112u << 23);
    return (F32)(finite | (bits & 0x8000u) << 16);
  }

  template <int V, int N>
  LAMELLA_INLINE static void multiply(F32 (&sums)[N][V], const U32 (&words)[V], const float* x, const NoGroup&) {
    multiply_numbers<2>(sums, x, [&](int v, int i) LAMELLA_BODY { return number(i == 0 ? words[v] : words[v] >> 16); });
  }
};

/// 8- and 4-bit codes, made numbers in registers.
template <int Bits>
struct CodeWeights {
  static constexpr int word_inputs = 32 / Bits, input_words = word_inputs;
  static constexpr InputForm form = InputForm::values;
  static constexpr RegisterTiles tiles = decoded_tiles;
  using Input = float;

  /// A code in the lowest bits of 2^23 is the float 2^23 + code: no conversion is needed, and the difference with
  /// 2^23 + zero is exact.
  template <int V>
  struct Group {
    F32 origin[V], scale[V], minimum[V];

    LAMELLA_INLINE explicit Group(const GroupTail& tail) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        origin[v] = tail.load_zero(v) + 8388608.0F;
        scale[v] = tail.load_scale(v);
        minimum[v] = tail.load_minimum(v);
      }
    }
  };

  template <int V, int N>
  LAMELLA_INLINE static void multiply(F32 (&sums)[N][V], const U32 (&words)[V], const float* x, const Group<V>& group) {
    constexpr std::uint32_t mask = (1u << Bits) - 1u;
    multiply_numbers<word_inputs>(sums, x, [&](int v, int i) LAMELLA_BODY {
      const int shift = Bits == 8 ? 8 * i : 8 * (i % 4) + 4 * (i / 4);
      const F32 code = (F32)((words[v] >> shift & mask) | 0x4b000000u);
      return multiply_add(code - group.origin[v], group.scale[v], group.minimum[v]);
    });
  }
};

/// 8- and 4-bit codes against int8 inputs: exact sums in int32.
template <int Bits>
struct CodeDots {
  static constexpr int word_inputs = 32 / Bits, input_words = word_inputs / 4 * quad_words<Bits>;
  static constexpr bool exact = true, in_halves = Bits == 4 && sums_in_halves;
  /// Words whose products fit 16 bits: 8 pairs of at most 2 * 15 * 127.
  static constexpr std::int64_t words_in_halves = 4;
  static constexpr RegisterTiles row_tiles = dots_tiles,
                                 group_tiles = in_halves ? grouped_halves_tiles : grouped_dots_tiles;
  using Input = std::int32_t;
  using Sum = I32;

  template <int V, int N>
  LAMELLA_INLINE static void multiply(I32 (&sums)[N][V], const U32 (&words)[V], const std::int32_t* x) {
#pragma GCC unroll 2
    for (int quad = 0; quad < word_inputs / 4; ++quad) {
      U32 bytes[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) bytes[v] = Bits == 8 ? words[v] : words[v] >> 4 * quad & 0x0f0f0f0fu;
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
          sums[n][v] = add_dots<N>(sums[n][v], bytes[v], x + std::int64_t{quad} * quad_words<Bits> * N + n);
    }
  }

  /// The same in 16-bit halves of lanes.
  template <int V, int N>
  LAMELLA_INLINE static void multiply_in_halves(U16Pairs (&sums)[N][V], const U32 (&words)[V], const std::int32_t* x) {
#pragma GCC unroll 2
    for (int quad = 0; quad < word_inputs / 4; ++quad) {
      U32 bytes[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) bytes[v] = words[v] >> 4 * quad & 0x0f0f0f0fu;
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const U32 codes = (U32)(x[std::int64_t{quad} * N + n] - I32{});
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sums[n][v] += (U16Pairs)byte_products(bytes[v], codes);
      }
    }
  }
};

/// 8- and 4-bit codes against bf16 inputs, where the set multiplies bf16 pairs: a code has at most eight significant bits,
/// with its bias and without, so it is a bf16, and its scale may wait for the end of the group, where a minimum meets the
/// group's sum of inputs.
template <int Bits, bool Biased>
struct CodePairs {
  static constexpr int word_inputs = 32 / Bits, input_words = word_inputs / 2;
  static constexpr bool exact = false, in_halves = false;
  static constexpr RegisterTiles row_tiles = code_pairs_tiles, group_tiles = grouped_code_pairs_tiles;
  using Input = std::uint32_t;
  using Sum = F32;

  template <int V, int N>
  LAMELLA_INLINE static void multiply(F32 (&sums)[N][V], const U32 (&words)[V], const std::uint32_t* x) {
#pragma GCC unroll 4
    for (int pair = 0; pair < word_inputs / 2; ++pair) {
      U32 weights[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) weights[v] = bf16_pair_of_codes<Biased>(Constant<Bits>{}, words[v], pair);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        std::uint32_t inputs;  // a row of bf16 begins at any of them
        __builtin_memcpy(&inputs, x + std::int64_t{pair} * N + n, sizeof inputs);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sums[n][v] = add_pair_of_bf16(sums[n][v], weights[v], inputs);
      }
    }
  }
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
