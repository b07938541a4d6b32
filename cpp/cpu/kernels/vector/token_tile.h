// The rows of a tile of tokens, after their norm where there is one, in the forms that weights are multiplied with: fp32,
// pairs of bf16, or int8 codes.
//
// A form is cut into blocks of the tokens that share a register tile, and a block is [element][token]: what a word of
// weights meets lies side by side, at one pointer. Rows as they come would need a pointer each, and rows 4 KiB apart would
// fight for the same lines of the first-level cache. Elements behind a row's end are zeros.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/norm.h"
#include "memory/rotation.h"

// The choice of dot products stands before this.
#include "cpu/kernels/vector/register_tiles.h"
#include "cpu/kernels/vector/rounding.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// What a matrix is multiplied with. Codes stand four to a word, or in two words of 16 bits each (pack_quad).
enum class InputForm : std::uint8_t { values, pairs, crossed_pairs, codes, wide_codes };

/// The form of int8 inputs beside weights of so many bits.
template <int Bits>
constexpr InputForm form_of_codes = quad_words<Bits> == 1 ? InputForm::codes : InputForm::wide_codes;
LAMELLA_INLINE constexpr bool is_of_codes(InputForm form) {
  return form == InputForm::codes || form == InputForm::wide_codes;
}

template <typename T>
LAMELLA_INLINE InputForm form_for(const WeightFormat& format) {
  if (has_int8_inputs(format)) return format.element == Element::i4 ? form_of_codes<4> : form_of_codes<8>;
  if constexpr (multiplies_bf16_pairs && is_bf16<T>) {
    if (format.offset != Offset::zero) {  // whose difference with a code is a number of the lane
      if (format.element == Element::bf16 || format.element == Element::i8) return InputForm::pairs;
      if (format.element == Element::i4) return InputForm::crossed_pairs;
    }
  }
  return InputForm::values;
}

/// How a tile's tokens are cut into blocks: at most so many each, and evenly, so that 8 tokens are 4 and 4, not 6 and 2.
struct TokenBlocks {
  std::int64_t count = 0, each = 0, extra = 0;  // the first `extra` blocks have one token more

  LAMELLA_INLINE TokenBlocks(std::int64_t tokens, std::int64_t most)
      : count((tokens + most - 1) / most), each(tokens / count), extra(tokens % count) {}
  [[nodiscard]] LAMELLA_INLINE std::int64_t first(std::int64_t block) const {
    return block * each + smaller(block, extra);
  }
  [[nodiscard]] LAMELLA_INLINE std::int64_t tokens(std::int64_t block) const { return each + (block < extra ? 1 : 0); }
};

/// The tokens that an op takes, and how they may meet its matrices (contracts.h).
struct LinearTokens {
  std::int64_t count;
  bool shared_inputs, sbi_gemm;

  template <typename Arguments>
  LAMELLA_INLINE static LinearTokens of(const Arguments& a) {
    return {a.tokens, a.shared_inputs, a.sbi_gemm};
  }
};

/// The way of so many tokens: with whole panels, or in chunks.
struct Walk {
  RegisterTile tile;
  bool whole_panels;

  LAMELLA_INLINE Walk(const RegisterTiles& tiles, std::int64_t tokens, bool sbi_gemm)
      : tile(tiles.many), whole_panels(sbi_gemm && tokens <= tiles.few.tokens) {
    if (whole_panels) tile = tiles.few;
  }
};

/// A tile's rows in one form. The block that begins with token t begins at element t * row_elements.
struct TokenTile {
  std::int64_t tokens = 0;
  const void* elements = nullptr;
  std::int64_t row_elements = 0;
  bool whole_panels = false;  // how it meets the panels
  // Of int8 codes only:
  const float* scales = nullptr;  // [tokens]
  const std::int32_t* totals = nullptr;  // [tokens]: a row's sum of codes
  const std::int32_t* group_sums = nullptr;  // by blocks [group][token]: what the group's dots begin with, or its sum
  // Of bf16 pairs for codes with minimums:
  const float* input_sums = nullptr;  // by blocks [group][token]: the group's sum of inputs
  std::int64_t groups = 0;
};

/// What a tile is made for: everything of a format and its register tiles that the elements depend on.
struct TileForm {
  InputForm form = InputForm::values;
  bool rotated = false;
  std::int32_t group = 0;  // whose sums are kept: of codes in groups, of bf16 for codes with minimums
  std::int32_t factor = 0;  // what sums of codes are multiplied with
  std::int64_t most = 0;  // tokens of a block
  bool whole_panels = false;  // for view(); the elements are the same either way

  template <typename T>
  LAMELLA_INLINE static TileForm of(const WeightFormat& format, const Walk& walk) {
    TileForm made{form_for<T>(format)};
    made.most = walk.tile.tokens;
    made.whole_panels = walk.whole_panels;
    made.rotated = format.input == LinearInput::int8_rotated;
    if (is_of_codes(made.form) && format.group != 0) {
      made.group = format.group;
      made.factor = format.offset == Offset::none ? -code_bias(format) : 1;  // -bias takes the bias from the dots
    } else if (made.form != InputForm::values && format.offset != Offset::none) {
      made.group = format.group;
    }
    return made;
  }
  LAMELLA_INLINE bool operator==(const TileForm& other) const {
    return form == other.form && rotated == other.rotated && group == other.group && factor == other.factor &&
           most == other.most;
  }
};

/// The rows that an op reads: of x, normalised where it begins with a norm.
template <typename T>
struct RowSource {
  const T* x;
  RowNorm norm;  // kind none: rows as they are; the width counts

  LAMELLA_INLINE const T* row(std::int64_t t, T* room) const {
    if (norm.kind == NormKind::none) return x + t * norm.width;
    normalise_row(x + t * norm.width, room, norm);
    return room;
  }
};

/// Hands out memory piece by piece, every piece a cache line's multiple.
struct Carver {
  std::byte* free;

  template <typename Element>
  LAMELLA_INLINE Element* take(std::int64_t count) {
    Element* taken = reinterpret_cast<Element*>(free);
    free += round_up(count * static_cast<std::int64_t>(sizeof(Element)), 64);
    return taken;
  }
};

/// A worker's room for the rows of one block on their way to a form.
template <typename T>
struct RowRoom {
  T* row;
  float* values;
  std::int8_t* codes;
  std::uint32_t* elements;  // [block_tokens][stride]
  std::int32_t* sums;  // of 32 codes each
  std::int64_t stride;

  LAMELLA_INLINE RowRoom(std::int64_t width, Carver& memory)
      : row(memory.take<T>(width)),
        values(memory.take<float>(round_up(width, 8))),
        codes(memory.take<std::int8_t>(round_up(width, 8))),
        elements(memory.take<std::uint32_t>(block_tokens * round_up(width, 8))),
        sums(memory.take<std::int32_t>(round_up((width + 31) / 32, 4))),
        stride(round_up(width, 8)) {}
};

/// Memory for a tile of at most so many tokens in any form (kernels/scratch.cpp counts it), and how the forms are made.
template <typename T>
class InputTile {
 public:
  LAMELLA_INLINE InputTile(std::int64_t tokens, std::int64_t width, Carver& memory)
      : width_(width),
        padded_(round_up(width, 8)),
        elements_(memory.take<std::byte>(tokens * padded_ * 4)),
        scales_(memory.take<float>(tokens)),
        totals_(memory.take<std::int32_t>(tokens)),
        group_sums_(memory.take<std::byte>(tokens * ((width + 31) / 32) * 4)) {}

  /// The tile as it stands once all of its blocks are made.
  [[nodiscard]] LAMELLA_INLINE TokenTile view(const TileForm& form, std::int64_t tokens) const {
    const std::int64_t blocks = (width_ + 31) / 32, of_group = form.group / 32;
    return {.tokens = tokens,
            .elements = elements_,
            .row_elements = row_elements(form.form),
            .whole_panels = form.whole_panels,
            .scales = scales_,
            .totals = totals_,
            .group_sums = reinterpret_cast<const std::int32_t*>(group_sums_),
            .input_sums = reinterpret_cast<const float*>(group_sums_),
            .groups = form.group == 0 ? 0 : (blocks + of_group - 1) / of_group};
  }

  /// Makes blocks [begin, end) of the tile that begins with the source's row `first`.
  [[gnu::noinline]] void make(const TileForm& form, const RowSource<T>& source, std::int64_t first, std::int64_t tokens,
                              const Range& range, const RowRoom<T>& room) {
    const TokenBlocks blocks(tokens, form.most);
    const TokenTile tile = view(form, tokens);
    for (std::int64_t block = range.begin; block < range.end; ++block) {
      const std::int64_t at = blocks.first(block), count = blocks.tokens(block);
      const void* rows[block_tokens];
      for (std::int64_t n = 0; n < count; ++n) {
        std::uint32_t* own = room.elements + n * room.stride;
        // A normalised row may stand where its form will, but where that is wider than what is read.
        const bool widens = form.form == InputForm::values && sizeof(T) < sizeof(float);
        const T* row = source.row(first + at + n, widens ? room.row : reinterpret_cast<T*>(own));
        switch (form.form) {
          case InputForm::values: rows[n] = make_values(row, own); break;
          case InputForm::pairs:
          case InputForm::crossed_pairs:
            if (form.group != 0) sum_inputs(row, form, at * tile.groups + n, count);
            rows[n] = make_pairs(row, own, form.form == InputForm::crossed_pairs);
            break;
          case InputForm::codes:
          case InputForm::wide_codes:
            rows[n] = make_codes(row, at + n, own, room, form);
            if (form.group != 0) make_group_sums(form, at * tile.groups + n, count, tile.groups, room);
            break;
        }
      }
      auto* to = reinterpret_cast<std::uint32_t*>(elements_) + at * tile.row_elements;
      with_count<block_tokens>(count, [&](auto constant) LAMELLA_BODY {
        constexpr int n = decltype(constant)::value;
        interleave<n>(rows, tile.row_elements, to);
      });
    }
  }

 private:
  /// Element after element, all rows of one beside each other: every line of the block is written once, in order.
  template <int N>
  [[gnu::noinline]] static void interleave(const void* const* rows, std::int64_t elements, std::uint32_t* to) {
    const std::byte* from[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) from[n] = static_cast<const std::byte*>(rows[n]);
    for (std::int64_t e = 0; e < elements; ++e)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) __builtin_memcpy(to + e * N + n, from[n] + e * 4, 4);
  }

  LAMELLA_INLINE std::int64_t row_elements(InputForm form) const {
    switch (form) {
      case InputForm::values: return padded_;
      case InputForm::pairs:
      case InputForm::crossed_pairs: return padded_ / 2;
      case InputForm::codes: return padded_ / 4;
      case InputForm::wide_codes: break;
    }
    return padded_ / 2;
  }

  LAMELLA_INLINE const void* make_values(const T* row, std::uint32_t* own) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (width_ == padded_ && row != reinterpret_cast<const T*>(own)) return row;
    }
    float* values = reinterpret_cast<float*>(own);
    each_vector(width_,
                [&](std::int64_t i, int count) LAMELLA_BODY { store(values + i, load(row + i, count), count); });
    for (std::int64_t i = width_; i < padded_; ++i) values[i] = 0.0F;
    return values;
  }

  LAMELLA_INLINE const void* make_pairs(const T* row, std::uint32_t* own, bool crossed) const {
    auto* bytes = reinterpret_cast<std::byte*>(own);
    const auto size = static_cast<std::size_t>(width_) * sizeof(T);
    if (reinterpret_cast<const std::byte*>(row) != bytes) {
      if (!crossed && width_ == padded_) return row;
      __builtin_memcpy(bytes, row, size);
    }
    __builtin_memset(bytes + size, 0, static_cast<std::size_t>(padded_ - width_) * sizeof(T));
    if (crossed) cross(own);
    return own;
  }

  /// Of every eight inputs 0 and 2, 4 and 6, 1 and 3, 5 and 7: as they stand in a word of 4-bit codes.
  LAMELLA_INLINE void cross(std::uint32_t* pairs) const {
    for (std::int64_t i = 0; i < padded_ / 2; i += 4) {
      const std::uint32_t a = pairs[i], b = pairs[i + 1], c = pairs[i + 2], d = pairs[i + 3];
      pairs[i] = (a & 0xffffu) | b << 16;
      pairs[i + 1] = (c & 0xffffu) | d << 16;
      pairs[i + 2] = a >> 16 | (b & 0xffff0000u);
      pairs[i + 3] = c >> 16 | (d & 0xffff0000u);
    }
  }

  LAMELLA_INLINE const void* make_codes(const T* row, std::int64_t token, std::uint32_t* own, const RowRoom<T>& room,
                                        const TileForm& form) {
    const bool as_they_stand = form.form == InputForm::codes;
    std::int8_t* codes = as_they_stand ? reinterpret_cast<std::int8_t*>(own) : room.codes;
    scales_[token] = quantise(row, codes, room, totals_ + token, form.rotated);
    if (!as_they_stand)
      for (std::int64_t quad = 0; quad < padded_ / 4; ++quad)
        pack_quad(codes + quad * 4, reinterpret_cast<std::int32_t*>(own) + quad * 2);
    return own;
  }

  LAMELLA_INLINE float quantise(const T* row, std::int8_t* codes, const RowRoom<T>& room, std::int32_t* total,
                                bool rotated) {
    if (rotated) return quantise_row(rotate_inputs(row, room), codes, room.sums, total);
    return quantise_row(row, codes, room.sums, total);
  }

  LAMELLA_INLINE void make_group_sums(const TileForm& form, std::int64_t to, std::int64_t stride, std::int64_t groups,
                                      const RowRoom<T>& room) {
    const std::int64_t blocks = (width_ + 31) / 32, of_group = form.group / 32;
    for (std::int64_t g = 0; g < groups; ++g) {
      std::int32_t sum = 0;
      for (std::int64_t b = g * of_group; b < smaller((g + 1) * of_group, blocks); ++b) sum += room.sums[b];
      reinterpret_cast<std::int32_t*>(group_sums_)[to + g * stride] = form.factor * sum;
    }
  }

  /// The sums of a row's groups, to `to` and every `stride` behind it.
  LAMELLA_INLINE void sum_inputs(const T* row, const TileForm& form, std::int64_t to, std::int64_t stride) {
    auto* sums = reinterpret_cast<float*>(group_sums_) + to;
    for (std::int64_t at = 0; at < width_; at += form.group, sums += stride)
      *sums = sum_row(smaller(form.group, width_ - at),
                      [&](std::int64_t i, int count) LAMELLA_BODY { return load(row + at + i, count); });
  }

  /// x H in fp32 (memory/rotation.h): the stages two at a time, which halves the loads and stores and changes no bit.
  const float* rotate_inputs(const T* row, const RowRoom<T>& room) {
    float* x = room.values;
    const std::int64_t block = rotation_block(width_), lines = width_ / block;
    if (block >= 4) rotate_twice(row, x, lines);
    else
      each_vector(width_, [&](std::int64_t i, int count) LAMELLA_BODY { store(x + i, load(row + i, count), count); });
    std::int64_t h = block >= 4 ? 4 : 1;
    for (; 4 * h <= block; h *= 4) rotate_twice(x, x, h * lines);
    if (h < block) {
      const std::int64_t run = h * lines;
      each_vector(run, [&](std::int64_t i, int count) LAMELLA_BODY {
        const F32 a = load(x + i, count), b = load(x + run + i, count);
        store(x + i, a + b, count);
        store(x + run + i, a - b, count);
      });
    }
    return x;
  }

  /// The stages of runs of `run` and of 2 * run inputs.
  template <typename X>
  LAMELLA_INLINE void rotate_twice(const X* from, float* to, std::int64_t run) const {
    for (std::int64_t at = 0; at < width_; at += 4 * run)
      each_vector(run, [&](std::int64_t i, int count) LAMELLA_BODY {
        const std::int64_t place = at + i;
        const F32 a = load(from + place, count), b = load(from + place + run, count);
        const F32 c = load(from + place + 2 * run, count), d = load(from + place + 3 * run, count);
        const F32 sum = a + b, difference = a - b, other_sum = c + d, other_difference = c - d;
        store(to + place, sum + other_sum, count);
        store(to + place + run, difference + other_difference, count);
        store(to + place + 2 * run, sum - other_sum, count);
        store(to + place + 3 * run, difference - other_difference, count);
      });
  }

  /// Rounds a row (contracts.h) to `codes`, zeros behind them, and sums 32 of them each. Returns its scale.
  template <typename X>
  float quantise_row(const X* row, std::int8_t* codes, std::int32_t* sums, std::int32_t* row_total) {
    const Rounding rounding(magnitudes_of(row, width_), 127.0F);
    std::int32_t total = 0;
    for (std::int64_t begin = 0; begin < width_; begin += 128) {
      F32 four[4] = {};  // sums of 32 codes by lanes: whole numbers, exact in fp32
#pragma GCC unroll 4
      for (int block = 0; block < 4; ++block) {
        const std::int64_t at = begin + std::int64_t{32} * block;
        each_vector(smaller(32, larger(width_ - at, 0)), [&](std::int64_t i, int count) LAMELLA_BODY {
          const I32 rounded = rounding.round(load(row + at + i, count));
          store_bytes(codes + at + i, rounded, count);
          four[block] += first_lanes(__builtin_convertvector(rounded, F32), count, F32{});
        });
      }
      float block_sums[4];
      sum_lanes(four[0], four[1], four[2], four[3], block_sums);
#pragma GCC unroll 4
      for (int block = 0; block < 4; ++block) {
        const auto sum = static_cast<std::int32_t>(block_sums[block]);
        sums[begin / 32 + block] = sum;
        total += sum;
      }
    }
    for (std::int64_t i = width_; i < padded_; ++i) codes[i] = 0;
    *row_total = total;
    return rounding.scale;
  }

  std::int64_t width_, padded_;
  std::byte* elements_;
  float* scales_;
  std::int32_t* totals_;
  std::byte* group_sums_;  // or sums of inputs
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
