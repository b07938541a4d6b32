// Stored elements to fp32.
#pragma once

#include <cstddef>
#include <span>

#include "io/tensor_table.h"

namespace lamella::io {

/// Expands whole blocks of a floating or quantised type to fp32, in the order in which they are stored, with the very
/// values of the Python package `gguf` (`gguf.quants.dequantize`), bit for bit: same products, same order, each
/// rounded once. F64 is rounded to nearest even. NaN stays NaN. `in` holds any number of blocks, `out` as many
/// elements; integers and booleans are an unsupported_model, spans that do not match a broken invariant.
void expand_row_range_to_f32(StorageType type, std::span<const std::byte> in, std::span<float> out);

/// Whether expand_row_range_to_f32 takes the type.
[[nodiscard]] bool expands_to_f32(StorageType type) noexcept;

}  // namespace lamella::io
