// The one layout of matrices that all CPU kernels read, for every format (design section 3; the paper's III-C.3).
//
// Outputs stand in panels of 64: four tiles of 16, each output a vector lane. A 32-bit word holds M neighbouring inputs of
// one output (M = 1, 2, 4, 8 for 32, 16, 8 and 4 bits), so that a lane reads whole words, as the paper interleaves M
// inputs. A panel is a run of blocks, one for each group of inputs (ungrouped formats: one):
//
//   [word][tile][lane] 32-bit words | [tile][lane] scales | [tile][lane] offsets
//
// The last panel has only the tiles that it needs; lanes and inputs beyond the matrix are zero codes with zero scales.
// Inside a word, input 0 stands in the lowest bits; of eight 4-bit inputs, bytes 0 to 3 hold inputs 0 to 3 in their low
// and inputs 4 to 7 in their high halves, so that one mask gives four neighbours as bytes. i8 without an offset is
// stored as code + 128, the unsigned operand that vpdpbusd wants.
//
// All arithmetic here is always inlined: kernels of all instruction sets include this file, and a shared copy compiled for one of
// them must never run on a machine without it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lamella/weight_format.h"

namespace lamella {

inline constexpr std::int64_t tile_outputs = 16;
inline constexpr std::int64_t panel_tiles = 4;
inline constexpr std::int64_t panel_outputs = tile_outputs * panel_tiles;

/// Lowest bit, within a word of so many inputs, of its input number `index`.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t bit_offset(std::int64_t word_inputs,
                                                                    std::int64_t index) noexcept {
  return word_inputs == 8 ? index % 4 * 8 + index / 4 * 4 : index * (32 / word_inputs);
}

/// Where everything of a packed matrix lies, in bytes from its start.
struct PanelLayout {
  std::int64_t outputs = 0, inputs = 0;
  std::int64_t word_inputs = 1;  // M
  std::int64_t group_inputs = 0;  // inputs of every block but the last; ungrouped: all
  std::int64_t groups = 1;  // blocks of a panel
  std::int64_t scale_bytes = 0, offset_bytes = 0;  // of one output and group

  [[gnu::always_inline]] PanelLayout(const WeightFormat& format, std::int64_t outputs_, std::int64_t inputs_) noexcept
      : outputs(outputs_), inputs(inputs_) {
    word_inputs = 32 / bits_of(format.element);
    group_inputs = format.group == 0 ? inputs : format.group;
    groups = group_inputs == 0 ? 1 : (inputs + group_inputs - 1) / group_inputs;
    scale_bytes = format.scale == Scale::none ? 0 : format.scale == Scale::f32 ? 4 : 2;
    offset_bytes = format.offset == Offset::none ? 0 : format.offset == Offset::minimum ? 2 : 1;
  }

  [[nodiscard, gnu::always_inline]] std::int64_t panels() const noexcept {
    return (outputs + panel_outputs - 1) / panel_outputs;
  }
  [[nodiscard, gnu::always_inline]] std::int64_t tiles() const noexcept {
    return (outputs + tile_outputs - 1) / tile_outputs;
  }
  /// Tiles of a panel: four, fewer in the last.
  [[nodiscard, gnu::always_inline]] std::int64_t tiles_of(std::int64_t panel) const noexcept {
    const std::int64_t left = tiles() - panel * panel_tiles;
    return left < panel_tiles ? left : panel_tiles;
  }
  /// Inputs of a group: group_inputs, fewer in the last.
  [[nodiscard, gnu::always_inline]] std::int64_t inputs_of(std::int64_t group) const noexcept {
    const std::int64_t left = inputs - group * group_inputs;
    return left < group_inputs ? left : group_inputs;
  }
  [[nodiscard, gnu::always_inline]] std::int64_t words_of(std::int64_t group) const noexcept {
    return (inputs_of(group) + word_inputs - 1) / word_inputs;
  }
  /// Words along the inputs of one output, all groups.
  [[nodiscard, gnu::always_inline]] std::int64_t words() const noexcept {
    return (groups - 1) * (group_inputs / word_inputs) + words_of(groups - 1);
  }
  [[nodiscard, gnu::always_inline]] std::int64_t block_bytes(std::int64_t group,
                                                             std::int64_t tile_count) const noexcept {
    return tile_count * tile_outputs * (words_of(group) * 4 + scale_bytes + offset_bytes);
  }
  [[nodiscard, gnu::always_inline]] std::int64_t panel_bytes(std::int64_t tile_count) const noexcept {
    return tile_count * tile_outputs * (words() * 4 + groups * (scale_bytes + offset_bytes));
  }
  [[nodiscard, gnu::always_inline]] std::int64_t panel_offset(std::int64_t panel) const noexcept {
    return panel * panel_bytes(panel_tiles);
  }
  [[nodiscard, gnu::always_inline]] std::int64_t block_offset(std::int64_t panel, std::int64_t group) const noexcept {
    // All blocks before the last are full ones.
    return panel_offset(panel) + group * block_bytes(0, tiles_of(panel));
  }
  /// Word `word` of group `group`, of output `output`.
  [[nodiscard, gnu::always_inline]] std::int64_t word_offset(std::int64_t output, std::int64_t group,
                                                             std::int64_t word) const noexcept {
    const std::int64_t panel = output / panel_outputs;
    return block_offset(panel, group) + (word * tiles_of(panel) * tile_outputs + output % panel_outputs) * 4;
  }
  [[nodiscard, gnu::always_inline]] std::int64_t scale_offset(std::int64_t output, std::int64_t group) const noexcept {
    const std::int64_t panel = output / panel_outputs, lanes = tiles_of(panel) * tile_outputs;
    return block_offset(panel, group) + lanes * words_of(group) * 4 + output % panel_outputs * scale_bytes;
  }
  [[nodiscard, gnu::always_inline]] std::int64_t offset_offset(std::int64_t output, std::int64_t group) const noexcept {
    const std::int64_t panel = output / panel_outputs, lanes = tiles_of(panel) * tile_outputs;
    return block_offset(panel, group) + lanes * (words_of(group) * 4 + scale_bytes) +
           output % panel_outputs * offset_bytes;
  }
  [[nodiscard, gnu::always_inline]] std::int64_t total_bytes() const noexcept {
    const std::int64_t last = panels() - 1;
    return panel_offset(last) + panel_bytes(tiles_of(last));
  }

  /// Lowest bit, within a word, of the word's input number `index`.
  [[nodiscard, gnu::always_inline]] std::int64_t bit_offset(std::int64_t index) const noexcept {
    return lamella::bit_offset(word_inputs, index);
  }
};

/// A packed matrix in memory: what kernels are given.
struct PackedMatrix {
  const std::byte* data = nullptr;  // nullptr: there is no such matrix
  std::int64_t outputs = 0, inputs = 0;
  WeightFormat format;

  [[nodiscard, gnu::always_inline]] PanelLayout layout() const noexcept { return {format, outputs, inputs}; }
};

/// The numbers of one output's row: row[inputs], each the fp32 value that the format defines.
void unpack_row(const PackedMatrix& matrix, std::int64_t output, float* row) noexcept;

}  // namespace lamella
