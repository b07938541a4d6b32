// Packing: rows of floats or codes into the panels that kernels read (memory/panels.h).
#pragma once

#include <cstddef>
#include <span>

#include "memory/panels.h"
#include "store/coded_rows.h"

namespace lamella {

/// A matrix in the making: `bytes` holds its whole layout and was zero before the first row was packed.
struct MatrixRoom {
  std::span<std::byte> bytes;
  std::int64_t outputs = 0, inputs = 0;
  WeightFormat format;
};

/// Packs rows [first, first + rows.size() / inputs), in whole tiles: `first` is a multiple of 16, and so is the number
/// of rows unless they reach the matrix's last. fp32 as it is, bf16 and fp16 rounded to nearest even; the caller has
/// refused what these cannot hold (largest_magnitude). Threads may pack different tiles at once.
void pack_floats(const MatrixRoom& room, std::int64_t first, std::span<const float> rows);

/// The same for a quantised format.
void pack_codes(const MatrixRoom& room, std::int64_t first, const CodedRows& rows);

}  // namespace lamella
