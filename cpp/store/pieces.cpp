#include "store/pieces.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/scratch.h"
#include "memory/panels.h"
#include "store/find_source.h"
#include "store/gguf_codes.h"
#include "store/pack.h"
#include "store/quantise.h"

namespace lamella {
namespace {

constexpr std::int64_t most_packed_bytes = std::int64_t{4} << 20;

/// Bytes that rows [0, rows) of a packed weight take; `rows` are whole panels or all.
std::int64_t packed_bytes(const WeightDeclaration& weight, std::int64_t rows) noexcept {
  if (rows == 0) return 0;
  if (is_vector(weight.id.slot)) return rows * std::int64_t(sizeof(float));
  return PanelLayout(weight.format, rows, weight.columns).total_bytes();
}

/// `to` becomes the inputs of `from` that begin with number `first`; groups stay whole.
void cut_inputs(const CodedRows& from, std::int64_t first, const WeightFormat& format, CodedRows& to) {
  check(format.group > 0 && first % format.group == 0, "codes cut at input ", first, " in groups of ", format.group);
  const auto copy = [&](const auto& source, std::int64_t source_width, std::int64_t begin, auto& target,
                        std::int64_t width) {
    if (source.empty()) return;
    for (std::int64_t row = 0; row < to.rows; ++row)
      std::copy_n(source.begin() + row * source_width + begin, width, target.begin() + row * width);
  };
  copy(from.codes, from.inputs, first, to.codes, to.inputs);
  copy(from.scales, from.groups, first / format.group, to.scales, to.groups);
  copy(from.offsets, from.groups, first / format.group, to.offsets, to.groups);
}

std::int64_t rows_of_a_piece(const WeightDeclaration& weight, const SourceRows& source) noexcept {
  const std::int64_t fit = most_packed_bytes / packed_bytes(weight, panel_outputs) * panel_outputs;
  return std::max(std::min(source.rows_at_once(), fit), panel_outputs);
}

}  // namespace

PieceList::PieceList(std::span<const WeightDeclaration> declarations, const LoadRecipe& recipe,
                     const io::TensorTable& tensors) {
  for (const auto& [weight, source, tensor] : find_sources(declarations, recipe, tensors)) {
    const SourceRows rows(*weight, *source, *tensor);
    const std::int64_t piece_rows = rows_of_a_piece(*weight, rows);
    weights_.push_back({weight, rows, piece_rows, size_});
    size_ += static_cast<std::size_t>((rows.map().rows() + piece_rows - 1) / piece_rows);
  }
}

Piece PieceList::operator[](std::size_t index) const {
  const auto next = std::ranges::upper_bound(weights_, index, {}, &SourcedWeight::first_piece);
  const SourcedWeight& sourced = *std::prev(next);
  const std::int64_t begin = std::int64_t(index - sourced.first_piece) * sourced.piece_rows;
  const std::int64_t end = std::min(begin + sourced.piece_rows, sourced.source.map().rows());
  const std::int64_t offset = packed_bytes(*sourced.weight, begin);
  return {.weight = static_cast<std::size_t>(&sourced - weights_.data()),
          .begin = begin,
          .end = end,
          .offset = static_cast<std::uint64_t>(offset),
          .bytes = static_cast<std::uint64_t>(packed_bytes(*sourced.weight, end) - offset)};
}

void PiecePacker::pack(const Piece& piece, std::span<std::byte> room) {
  const WeightDeclaration& weight = list_.weight(piece);
  const SourceRows& source = list_.source(piece);
  const WeightFormat& format = weight.format;
  check(room.size() == piece.bytes, to_string(weight.id), ": ", piece.bytes, " bytes of pieces into ", room.size());
  window_.read(source, piece.begin, piece.end, largest_magnitude(format));
  if (is_vector(weight.id.slot)) {
    resize_scratch(floats_, static_cast<std::size_t>(piece.end - piece.begin));
    window_.floats(piece.begin, floats_);
    std::memcpy(room.data(), floats_.data(), room.size());
    return;
  }
  // Whole panels are a matrix of their own.
  const MatrixRoom matrix{
      .bytes = room, .outputs = piece.end - piece.begin, .inputs = weight.columns, .format = format};
  const bool kept = !source.by_columns() && keeps_codes(source.tensor().type, format);
  for (std::int64_t row = 0; row < matrix.outputs; row += tile_outputs) {
    const std::int64_t rows = std::min(tile_outputs, matrix.outputs - row);
    if (kept) {
      take_rows(piece, row, rows);
      pack_codes(matrix, row, codes_);
      continue;
    }
    resize_scratch(floats_, static_cast<std::size_t>(rows * matrix.inputs));
    window_.floats(piece.begin + row, floats_);
    if (is_quantised(format)) {
      quantise_rows(floats_, rows, matrix.inputs, format, Rounding::clip_search, codes_);
      pack_codes(matrix, row, codes_);
    } else {
      pack_floats(matrix, row, floats_);
    }
  }
}

void PiecePacker::take_rows(const Piece& piece, std::int64_t first, std::int64_t rows) {
  const WeightDeclaration& weight = list_.weight(piece);
  const io::StorageType type = list_.source(piece).tensor().type;
  const SourceRows::Window& window = list_.source(piece).window();
  CodedRows& taken = window.elements == weight.columns ? codes_ : window_codes_;
  taken.resize(weight.format, rows, window.elements);
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t row = piece.begin + first + i;
    if (!take_codes(type, window_.stored(row), i, taken)) window_.refuse(row);
  }
  if (&taken == &codes_) return;
  codes_.resize(weight.format, rows, weight.columns);
  cut_inputs(window_codes_, window.skipped, weight.format, codes_);
}

}  // namespace lamella
