// Who makes the inputs of a linear: every worker for itself, or all together once.
//
// With few tokens each worker makes the whole tile in its own scratch and waits for nobody (the paper, III-D, broadcasts
// the input and repeats the norm on every SM). From shared_inputs_from tokens on the norm, the rotation and the rounding
// cost more than a barrier: in one phase the workers share the rows of a tile among them, in the next all multiply.
#pragma once

#include "cpu/kernels/vector/panel_product.h"
#include "cpu/kernels/vector/pieces.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// The inputs of one tile of tokens, in the forms that matrices ask for. Two forms are kept, because a gate and its up
/// matrix, which take turns, may have two formats.
template <typename T>
class TileInputs {
 public:
  /// Of a tile that is made already.
  LAMELLA_INLINE TileInputs(const InputTile<T>& made, const TileForm& form, std::int64_t tokens, bool sbi_gemm)
      : source_{}, first_(0), tokens_(tokens), sbi_gemm_(sbi_gemm), tiles_{made, made}, room_(nullptr) {
    forms_[0] = forms_[1] = form;
    kept_ = 2;
  }
  /// Of `tokens` rows from `first` on, made in scratch as they are asked for.
  LAMELLA_INLINE TileInputs(const RowSource<T>& source, std::int64_t first, std::int64_t tokens, bool sbi_gemm,
                            const InputTile<T> (&tiles)[2], const RowRoom<T>& room)
      : source_(source),
        first_(first),
        tokens_(tokens),
        sbi_gemm_(sbi_gemm),
        tiles_{tiles[0], tiles[1]},
        room_(&room) {}

  LAMELLA_INLINE TokenTile of(const WeightFormat& format) {
    const TileForm form = TileForm::of<T>(format, Walk(tiles_for<T>(format), tokens_, sbi_gemm_));
    // One bf16 row of whole pairs, as it is.
    if (form.form == InputForm::pairs && form.group == 0 && tokens_ == 1 && room_ != nullptr &&
        source_.norm.kind == NormKind::none && source_.norm.width % 8 == 0)
      return {.tokens = 1,
              .elements = source_.x + first_ * source_.norm.width,
              .row_elements = source_.norm.width / 2,
              .whole_panels = form.whole_panels};
    int slot = 0;
    while (slot < kept_ && !(forms_[slot] == form)) ++slot;
    if (slot == kept_) {
      slot = kept_ < 2 ? kept_++ : 1 - last_;
      forms_[slot] = form;
      const TokenBlocks blocks(tokens_, form.most);
      tiles_[slot].make(form, source_, first_, tokens_, {0, blocks.count}, *room_);
    }
    last_ = slot;
    return tiles_[slot].view(form, tokens_);
  }

 private:
  RowSource<T> source_;
  std::int64_t first_, tokens_;
  bool sbi_gemm_;
  InputTile<T> tiles_[2];
  const RowRoom<T>* room_;
  TileForm forms_[2];
  int kept_ = 0, last_ = 0;
};

/// Calls body(inputs, first token, tokens, room) for what of the tiles falls to this phase: all tiles one after the other
/// where workers make their inputs themselves; else one tile, or in the phase before it nothing, because the tile is made
/// then. All matrices have `format` where inputs are shared. `room` is what the inputs leave of the worker's scratch.
template <typename T, typename Body>
LAMELLA_INLINE void each_input_tile(const RowSource<T>& source, const LinearTokens& tokens, const WeightFormat& format,
                                    const Worker& worker, Body body) {
  const std::int64_t width = source.norm.width;
  Carver scratch{worker.scratch.data};
  const RowRoom<T> row(width, scratch);
  if (tokens.shared_inputs) {
    const std::int64_t first = worker.phase / 2 * shared_tile_tokens,
                       count = smaller(shared_tile_tokens, tokens.count - first);
    Carver memory{worker.shared.data};
    InputTile<T> tile(count, width, memory);
    const TileForm form = TileForm::of<T>(format, Walk(tiles_for<T>(format), count, tokens.sbi_gemm));
    if (worker.phase % 2 == 0) {
      const TokenBlocks blocks(count, form.most);
      return tile.make(form, source, first, count, share(blocks.count, worker), row);
    }
    TileInputs<T> inputs(tile, form, count, tokens.sbi_gemm);
    return body(inputs, first, count, scratch);
  }
  const InputTile<T> tiles[2] = {{token_tile, width, scratch}, {token_tile, width, scratch}};
  for (std::int64_t first = 0; first < tokens.count; first += token_tile) {
    const std::int64_t count = smaller(token_tile, tokens.count - first);
    TileInputs<T> inputs(source, first, count, tokens.sbi_gemm, tiles, row);
    body(inputs, first, count, scratch);
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
