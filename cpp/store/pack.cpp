#include "store/pack.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "base/float_bits.h"

namespace lamella {
namespace {

/// Words of 16 rows that are turned at a time: 16 KiB, half of the smallest L1. Rows of a power of two would otherwise
/// meet in the same few cache sets.
constexpr std::int64_t chunk_words = 256;
using Chunk = std::array<std::array<std::uint32_t, chunk_words>, tile_outputs>;

// ---- a row's inputs to words: [begin, begin + count) of the row, `begin` on a word; the last word is padded with zeros

template <std::uint16_t (*round)(float)>
void halves_to_words(const float* from, std::int64_t count, std::uint32_t* words) noexcept {
  auto* halves = reinterpret_cast<std::byte*>(words);  // little-endian: input 0 in the low half
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint16_t half = round(from[i]);
    std::memcpy(halves + i * 2, &half, sizeof half);
  }
}

void nibbles_to_words(const std::uint8_t* from, std::int64_t count, std::uint32_t* words) noexcept {
  for (; count >= 8; count -= 8, from += 8, ++words) {
    std::array<std::uint32_t, 2> codes;  // inputs 0 to 3 and 4 to 7, a byte each
    std::memcpy(codes.data(), from, sizeof codes);
    *words = codes[0] | codes[1] << 4;
  }
  for (std::int64_t i = 0; i < count; ++i) *words |= std::uint32_t{from[i]} << (i % 4 * 8 + i / 4 * 4);
}

void to_words(const float* row, Element element, std::int64_t begin, std::int64_t count, std::uint32_t* words) {
  switch (element) {
    case Element::f32: std::memcpy(words, row + begin, static_cast<std::size_t>(count) * sizeof(float)); return;
    case Element::bf16: return halves_to_words<bf16_from_f32>(row + begin, count, words);
    case Element::f16: return halves_to_words<f16_from_f32>(row + begin, count, words);
    default: check(false, "floats to pack as integers");
  }
}

void to_words(const std::uint8_t* row, Element element, std::int64_t begin, std::int64_t count, std::uint32_t* words) {
  switch (element) {
    case Element::i8: std::memcpy(words, row + begin, static_cast<std::size_t>(count)); return;
    case Element::i4: return nibbles_to_words(row + begin, count, words);
    default: check(false, "codes to pack as floats");
  }
}

// ---- words to the tile -----------------------------------------------------------------------------------------------

using Word4 = std::uint32_t __attribute__((vector_size(16)));

Word4 load(const std::uint32_t* from) noexcept {
  Word4 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

/// Writes words [word, word + 4) of four lanes to out[0..3], each of which gets one word of every lane.
void turn(const Chunk& chunk, std::size_t lane, std::size_t word, const std::array<std::byte*, 4>& out) noexcept {
  const Word4 a = load(&chunk[lane][word]), b = load(&chunk[lane + 1][word]);
  const Word4 c = load(&chunk[lane + 2][word]), d = load(&chunk[lane + 3][word]);
  const Word4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Word4 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const std::array<Word4, 4> turned = {
      __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
      __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (std::size_t i = 0; i < 4; ++i)
    if (out[i] != nullptr) std::memcpy(out[i] + lane * sizeof(std::uint32_t), &turned[i], sizeof turned[i]);
}

/// Packs `rows` rows, at most a tile, from `values` (rows of `inputs` floats or codes).
template <typename T>
void pack_tile(const MatrixRoom& room, const PanelLayout& layout, std::int64_t first, const T* values,
               std::int64_t rows) {
  const std::int64_t words = layout.words(), group_words = layout.words_of(0);
  Chunk chunk{};
  for (std::int64_t begin = 0; begin < words; begin += chunk_words) {
    const std::int64_t count = std::min(chunk_words, words - begin);
    const std::int64_t begin_input = begin * layout.word_inputs;
    const std::int64_t inputs = std::min(count * layout.word_inputs, layout.inputs - begin_input);
    for (std::int64_t lane = 0; lane < tile_outputs; ++lane) {
      std::uint32_t* to = chunk[static_cast<std::size_t>(lane)].data();
      // The last word may be filled in part, and the last four are turned together.
      const std::int64_t zeros = lane < rows ? std::min<std::int64_t>(count, 4) : count;
      std::fill_n(to + count - zeros, zeros, 0U);
      if (lane < rows) to_words(values + lane * layout.inputs, room.format.element, begin_input, inputs, to);
    }
    for (std::int64_t word = 0; word < count; word += 4) {
      std::array<std::byte*, 4> out{};
      for (std::int64_t i = 0; i < std::min<std::int64_t>(4, count - word); ++i) {
        const std::int64_t at = begin + word + i;
        out[static_cast<std::size_t>(i)] =
            room.bytes.data() + layout.word_offset(first, at / group_words, at % group_words);
      }
      for (std::size_t lane = 0; lane < tile_outputs; lane += 4) turn(chunk, lane, static_cast<std::size_t>(word), out);
    }
  }
}

void check_rows(const MatrixRoom& room, const PanelLayout& layout, std::int64_t first, std::int64_t rows) {
  check(std::int64_t(room.bytes.size()) == layout.total_bytes() && first % tile_outputs == 0 && rows > 0 &&
            first + rows <= room.outputs && (rows % tile_outputs == 0 || first + rows == room.outputs),
        "pack rows ", first, " to ", first + rows, " of ", room.outputs, " into ", room.bytes.size(), " bytes");
}

}  // namespace

void pack_floats(const MatrixRoom& room, std::int64_t first, std::span<const float> rows) {
  const PanelLayout layout(room.format, room.outputs, room.inputs);
  const std::int64_t count = std::int64_t(rows.size()) / room.inputs;
  check_rows(room, layout, first, count);
  for (std::int64_t row = 0; row < count; row += tile_outputs)
    pack_tile(room, layout, first + row, rows.data() + row * room.inputs, std::min(tile_outputs, count - row));
}

void pack_codes(const MatrixRoom& room, std::int64_t first, const CodedRows& rows) {
  const PanelLayout layout(room.format, room.outputs, room.inputs);
  check_rows(room, layout, first, rows.rows);
  for (std::int64_t row = 0; row < rows.rows; row += tile_outputs)
    pack_tile(room, layout, first + row, rows.codes.data() + row * room.inputs,
              std::min(tile_outputs, rows.rows - row));
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    for (std::int64_t group = 0; group < rows.groups; ++group) {
      const auto at = static_cast<std::size_t>(row * rows.groups + group);  // little-endian: the low bytes come first
      std::memcpy(room.bytes.data() + layout.scale_offset(first + row, group), &rows.scales[at],
                  static_cast<std::size_t>(layout.scale_bytes));
      if (layout.offset_bytes > 0)
        std::memcpy(room.bytes.data() + layout.offset_offset(first + row, group), &rows.offsets[at],
                    static_cast<std::size_t>(layout.offset_bytes));
    }
  }
}

}  // namespace lamella
