// The codebooks of ggml's IQ types: an index names a vector of eight or four small numbers, one a byte, the first in the
// lowest byte.
#pragma once

#include <array>
#include <cstdint>

namespace lamella::io {

/// Components g of -1, 0 and 1, as 128 + 8 g - 1: eighths with the offset of -1/8 that a code may ask for; 2 more give
/// the other offset, 1/8. The 128 keeps such an addition from borrowing from the next byte.
extern const std::array<std::uint64_t, 2048> iq1_codebook;

/// Magnitudes 8, 25 and 43.
extern const std::array<std::uint64_t, 256> iq2_xxs_codebook;
extern const std::array<std::uint64_t, 512> iq2_xs_codebook;
extern const std::array<std::uint64_t, 1024> iq2_s_codebook;

/// Magnitudes 4, 12, 20, ... 52 and 62.
extern const std::array<std::uint32_t, 256> iq3_xxs_codebook;

/// Magnitudes 1, 3, ... 15.
extern const std::array<std::uint32_t, 512> iq3_s_codebook;

}  // namespace lamella::io
