// y = x W^T, alone, and the walk over its outputs that region 4 shares.
#pragma once

#include "cpu/kernels/vector/tile_inputs.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Calls body(first tile, end, first output, outputs) for the tiles of a matrix that come to a worker, a panel or less at a
/// time. Shares are cut at tiles, not at panels: 576 outputs are nine panels, which two workers could not share evenly.
template <typename Body>
LAMELLA_INLINE void each_panel(std::int64_t all_outputs, const LinearTokens& tokens, const Worker& worker, Body body) {
  Pieces pieces((all_outputs + tile_outputs - 1) / tile_outputs, panel_tiles, tokens, worker);
  for (Range piece; pieces.next(piece);) {
    const std::int64_t first = piece.begin * tile_outputs;
    body(piece.begin, piece.end, first, smaller(piece.end * tile_outputs, all_outputs) - first);
  }
}

/// The inputs of a linear without a norm before it.
template <typename T>
LAMELLA_INLINE RowSource<T> plain_rows(const void* x, std::int64_t width) {
  return {static_cast<const T*>(x), {NormKind::none, nullptr, nullptr, 0.0F, width}};
}

/// Multiplies the tokens of a phase by the worker's share of the matrix and calls epilogue(row, token, first output,
/// outputs) for every row of fp32 results.
template <typename T, typename Epilogue>
LAMELLA_INLINE void multiply_all(const void* x, const PackedMatrix& matrix, const LinearTokens& tokens,
                                 const Worker& worker, Epilogue epilogue) {
  each_input_tile<T>(plain_rows<T>(x, matrix.inputs), tokens, matrix.format, worker,
                     [&](TileInputs<T>& inputs, std::int64_t first, std::int64_t count, Carver scratch) LAMELLA_BODY {
                       float* results = scratch.take<float>(count * panel_outputs);
                       const TokenTile tile = inputs.of(matrix.format);
                       each_panel(matrix.outputs, tokens, worker,
                                  [&](std::int64_t begin, std::int64_t end, std::int64_t o, std::int64_t outputs)
                                      LAMELLA_BODY {
                                        multiply_tiles<T>(tile, matrix, begin, end, results, panel_outputs);
                                        for (std::int64_t i = 0; i < count; ++i)
                                          epilogue(results + i * panel_outputs, first + i, o, outputs);
                                      });
                     });
}

template <typename T, typename Y>
void linear_into(const LinearArgs& a, const Worker& worker) {
  multiply_all<T>(a.x, a.weight, LinearTokens::of(a), worker,
                  [&](const float* row, std::int64_t t, std::int64_t o, std::int64_t outputs)
                      LAMELLA_BODY { store_row(static_cast<Y*>(a.y) + t * a.weight.outputs + o, row, outputs); });
}

template <typename T>
void linear(const LinearArgs& a, const Worker& worker) {
  if (a.y_f32) linear_into<T, float>(a, worker);
  else linear_into<T, T>(a, worker);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
