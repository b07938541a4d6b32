// Quantisers: fp32 rows to codes, scales and offsets of any quantised format.
#pragma once

#include <span>

#include "store/coded_rows.h"

namespace lamella {

/// How int4 groups find their scale. `nearest`: from the group's range (absmax / 7, or its ends), codes rounded to the
/// nearest. `clip_search`: the scale, of either sign, and the clipping with the least squared error among candidates
/// that are refitted by least squares: 25 % to 47 % less squared error of the outputs on real layers (test_clip_search.cpp).
/// int8 is always rounded to the nearest: its 255 levels leave nothing to search.
enum class Rounding : std::uint8_t { nearest, clip_search };

/// Quantises `rows` (`count` rows of `inputs` finite numbers, none beyond largest_magnitude) into `out`, which it
/// sizes; for formats with rotated inputs, the rows are rotated first (memory/rotation.h). Codes are computed with the scale as it is stored, rounded. A group whose scale rounds to 0 (all zero, or of
/// subnormal size; for a row's fp32 scale: below 2^-126) has codes that mean 0 and is exactly 0, or its constant
/// minimum. Depends on nothing but the arguments.
void quantise_rows(std::span<const float> rows, std::int64_t count, std::int64_t inputs, const WeightFormat& format,
                   Rounding rounding, CodedRows& out);

/// The largest magnitude that a matrix of that format takes: beyond it a number, a scale or a minimum would become
/// infinite. 65504 for formats with fp16 scales, which is simple to say and a thousand times any real weight.
[[nodiscard]] float largest_magnitude(const WeightFormat& format) noexcept;

}  // namespace lamella
