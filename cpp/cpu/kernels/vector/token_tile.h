// The rows of a tile of tokens in the forms that weights are multiplied with: fp32, pairs of bf16, or int8 codes. A worker
// makes them in its own scratch, once a tile and form; the last words of a row are filled up with zeros.
#pragma once

#include "cpu/kernels/contracts.h"
#include "memory/rotation.h"

// The choice of dot products stands before this.
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// What a matrix is multiplied with.
enum class InputForm : std::uint8_t { values, pairs, codes };

template <typename T>
LAMELLA_INLINE InputForm form_for(const WeightFormat& format) {
  if (has_int8_inputs(format)) return InputForm::codes;
  if constexpr (multiplies_bf16_pairs && sizeof(T) == sizeof(Bf16)) {
    if (is_bf16<T> && format.element == Element::bf16) return InputForm::pairs;
  }
  return InputForm::values;
}

/// A tile's rows. Only the forms that were asked for are there. Strides count elements of the form.
struct TokenTile {
  std::int64_t tokens = 0;
  const float* values = nullptr;  // [tokens][stride]
  std::int64_t values_stride = 0;
  const std::uint32_t* pairs = nullptr;  // [tokens][stride]: two bf16 a word
  std::int64_t pairs_stride = 0;
  const std::int32_t* codes = nullptr;  // [tokens][stride]: quad_words words for every four inputs
  std::int64_t codes_stride = 0;
  const float* scales = nullptr;  // [tokens]
  const std::int32_t* sums = nullptr;  // [tokens][stride]: sums of codes, 32 inputs each, then the whole row's
  std::int64_t sums_stride = 0;
};

/// Builds the forms of one tile of rows, [tokens][width] of T, as they are asked for.
template <typename T>
class TileBuilder {
 public:
  LAMELLA_INLINE TileBuilder(const T* rows, std::int64_t tokens, std::int64_t width, Scratch scratch)
      : rows_(rows), width_(width), padded_(round_up(width, 8)), free_(scratch.data) {
    tile.tokens = tokens;
  }

  LAMELLA_INLINE const TokenTile& with(const PackedMatrix& matrix) {
    switch (form_for<T>(matrix.format)) {
      case InputForm::values:
        if (tile.values == nullptr) make_values();
        break;
      case InputForm::pairs:
        if (tile.pairs == nullptr) make_pairs();
        break;
      case InputForm::codes:
        if (tile.codes == nullptr || rotated_ != (matrix.format.input == LinearInput::int8_rotated))
          make_codes(matrix.format.input == LinearInput::int8_rotated);
        break;
    }
    return tile;
  }

  TokenTile tile;

 private:
  template <typename Element>
  LAMELLA_INLINE Element* take(std::int64_t count) {
    Element* taken = reinterpret_cast<Element*>(free_);
    free_ += round_up(count * static_cast<std::int64_t>(sizeof(Element)), 64);
    return taken;
  }

  [[gnu::noinline]] void make_values() {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (width_ % 8 == 0) {
        tile.values = rows_;
        tile.values_stride = width_;
        return;
      }
    }
    float* values = take<float>(tile.tokens * padded_);
    for (std::int64_t t = 0; t < tile.tokens; ++t) {
      float* row = values + t * padded_;
      each_vector(width_, [&](std::int64_t i, int count)
                              LAMELLA_BODY { store(row + i, load(rows_ + t * width_ + i, count), count); });
      for (std::int64_t i = width_; i < padded_; ++i) row[i] = 0.0F;
    }
    tile.values = values;
    tile.values_stride = padded_;
  }

  /// bf16 rows are pairs already, where no row begins or ends with half of one.
  [[gnu::noinline]] void make_pairs() {
    tile.pairs_stride = padded_ / 2;
    if (width_ % 8 == 0) {
      tile.pairs = reinterpret_cast<const std::uint32_t*>(rows_);
      return;
    }
    std::uint32_t* pairs = take<std::uint32_t>(tile.tokens * padded_ / 2);
    const std::size_t bytes = static_cast<std::size_t>(width_) * sizeof(T),
                      padding = static_cast<std::size_t>(padded_ - width_) * sizeof(T);
    for (std::int64_t t = 0; t < tile.tokens; ++t) {
      auto* row = reinterpret_cast<std::byte*>(pairs + t * padded_ / 2);
      __builtin_memcpy(row, rows_ + t * width_, bytes);
      __builtin_memset(row + bytes, 0, padding);
    }
    tile.pairs = pairs;
  }

  /// A region whose matrices want both kinds of codes has one kind at a time, in the same memory.
  [[gnu::noinline]] void make_codes(bool rotated) {
    const std::int64_t blocks = (width_ + 31) / 32;
    if (tile.codes == nullptr) {
      tile.codes_stride = padded_ / 4 * quad_words;
      tile.sums_stride = blocks + 1;
      codes_ = take<std::int32_t>(tile.tokens * tile.codes_stride);
      scales_ = take<float>(tile.tokens);
      sums_ = take<std::int32_t>(tile.tokens * tile.sums_stride);
      rotated_row_ = take<float>(padded_);
      tile.codes = codes_;
      tile.scales = scales_;
      tile.sums = sums_;
    }
    rotated_ = rotated;
    for (std::int64_t t = 0; t < tile.tokens; ++t) {
      std::int32_t *codes = codes_ + t * tile.codes_stride, *sums = sums_ + t * tile.sums_stride;
      const T* row = rows_ + t * width_;
      scales_[t] =
          rotated ? quantise_row(rotate_inputs(row), codes, sums, blocks) : quantise_row(row, codes, sums, blocks);
    }
  }

  /// x H in fp32, in memory that the next row takes over (memory/rotation.h).
  const float* rotate_inputs(const T* row) {
    float* x = rotated_row_;
    each_vector(width_, [&](std::int64_t i, int count) LAMELLA_BODY { store(x + i, load(row + i, count), count); });
    each_rotated_run(width_, [&](std::int64_t at, std::int64_t partner, std::int64_t pairs) LAMELLA_BODY {
      each_vector(pairs, [&](std::int64_t i, int count) LAMELLA_BODY {
        const F32 a = load(x + at + i, count), b = load(x + partner + i, count);
        store(x + at + i, a + b, count);
        store(x + partner + i, a - b, count);
      });
    });
    return x;
  }

  /// contracts.h says how a row is rounded. Returns its scale: NaN where the row holds NaN or infinity.
  template <typename X>
  float quantise_row(const X* row, std::int32_t* words, std::int32_t* sums, std::int64_t blocks) {
    I32 bits = {};  // magnitudes compare as integers, NaN above all
    each_vector(width_, [&](std::int64_t i, int count) LAMELLA_BODY {
      const I32 magnitude = (I32)absolute(load(row + i, count));
      bits = magnitude > bits ? magnitude : bits;
    });
    float top = 0.0F;
    std::int32_t top_bits = bits[0];
    for (int i = 1; i < lanes; ++i) top_bits = bits[i] > top_bits ? bits[i] : top_bits;
    __builtin_memcpy(&top, &top_bits, sizeof top);
    const bool finite = top_bits < 0x7f800000, zero = !finite || top < 0x1p-100F;
    const float inverse = zero ? 0.0F : 127.0F / top;
    std::int32_t total = 0;
    for (std::int64_t b = 0; b < blocks; ++b) {
      alignas(64) std::int32_t block[32] = {};
      const std::int64_t begin = b * 32, inputs = smaller(32, width_ - begin);
      each_vector(inputs, [&](std::int64_t i, int count) LAMELLA_BODY {
        // Adding 1.5 * 2^23 rounds to the nearest whole number, ties to even, which then stands in the lowest bits.
        const F32 rounded = load(row + begin + i, count) * inverse + 12582912.0F;
        if (!zero) store_bits(block + i, (I32)rounded - 0x4b400000, count);
      });
      std::int32_t sum = 0;
      for (const std::int32_t code : block) sum += code;
      sums[b] = sum;
      total += sum;
      for (std::int64_t i = 0; i < round_up(inputs, 8); i += 4)
        pack_quad(block + i, words + (begin + i) / 4 * quad_words);
    }
    sums[blocks] = total;
    if (!finite) return __builtin_nanf("");
    return zero ? 0.0F : top / 127.0F;
  }

  const T* rows_;
  std::int64_t width_, padded_;
  std::byte* free_;
  bool rotated_ = false;  // of the codes
  std::int32_t *codes_ = nullptr, *sums_ = nullptr;
  float *scales_ = nullptr, *rotated_row_ = nullptr;
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
