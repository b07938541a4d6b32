// How a checkpoint's rows become packed bytes, a few panels at a time: what loading weights into memory and writing them
// into a store have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/tensor_table.h"
#include "model/load_recipe.h"
#include "model/weights.h"
#include "store/coded_rows.h"
#include "store/source_rows.h"

namespace lamella {

/// Rows [begin, end) of a weight, whole panels of a matrix, and the bytes of the packed weight that they become.
struct Piece {
  std::size_t weight = 0;  // of the list that was cut
  std::int64_t begin = 0, end = 0;
  std::uint64_t offset = 0, bytes = 0;
};

/// The weights of a list with the rows that they come from, cut into pieces that follow one another without a gap: about
/// a megabyte of the file (by columns eight, as floats) and at most four packed, but at least a panel.
class PieceList {
 public:
  /// Refers to the arguments. Errors: those of find_sources and SourceRows.
  PieceList(std::span<const WeightDeclaration> declarations, const LoadRecipe& recipe, const io::TensorTable& tensors);

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] Piece operator[](std::size_t index) const;
  [[nodiscard]] const WeightDeclaration& weight(const Piece& piece) const { return *weights_[piece.weight].weight; }
  [[nodiscard]] const SourceRows& source(const Piece& piece) const { return weights_[piece.weight].source; }

 private:
  struct SourcedWeight {
    const WeightDeclaration* weight;
    SourceRows source;
    std::int64_t piece_rows;
    std::size_t first_piece;
  };
  std::vector<SourcedWeight> weights_;
  std::size_t size_ = 0;
};

/// Packs pieces; one a thread, its memory kept from one piece to the next: the rows as read (by columns also as floats)
/// and sixteen of them as floats or codes.
class PiecePacker {
 public:
  PiecePacker(const PieceList& list, const io::TensorTable& tensors, io::Reader& reader)
      : list_(list), window_(tensors, reader) {}

  /// Fills `room`, piece.bytes long and zero. Codes that the format keeps are taken over (store/gguf_codes.h); everything
  /// else is expanded to fp32 and rounded to nearest even, or quantised (int4 with the clip search). Errors: those of
  /// RowWindow.
  void pack(const Piece& piece, std::span<std::byte> room);

 private:
  void take_rows(const Piece& piece, std::int64_t first, std::int64_t rows);

  const PieceList& list_;
  RowWindow window_;
  std::vector<float> floats_;
  CodedRows codes_, window_codes_;
};

}  // namespace lamella
