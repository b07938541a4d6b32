// GGUF blocks whose codes are taken over as they are, without becoming floats on the way.
#pragma once

#include <cstddef>
#include <optional>

#include "io/tensor_table.h"
#include "store/coded_rows.h"

namespace lamella {

/// The format that keeps a stored type's codes: Q4_0, Q4_1 and Q8_0 bit for bit; Q4_K as q4_1, its 4-bit codes kept and
/// its 32-wide scales and minima rounded to fp16. None for every other type.
[[nodiscard]] std::optional<WeightFormat> kept_format(io::StorageType type) noexcept;

/// Whether `format` keeps the codes of `type`, whatever it does to a linear's inputs.
[[nodiscard]] bool keeps_codes(io::StorageType type, const WeightFormat& format) noexcept;

/// Row `row` of `out`, which has its size, from a stored row of a type that has a kept_format. False where a scale or a
/// minimum is NaN, infinite or beyond fp16; the row then holds nothing of use.
[[nodiscard]] bool take_codes(io::StorageType type, const std::byte* stored, std::int64_t row, CodedRows& out) noexcept;

}  // namespace lamella
