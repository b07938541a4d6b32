// Random numbers without state: a pure function of a key and a counter (Philox 4x32-10; Salmon et al., SC 2011).
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace lamella {

/// Four independent 32-bit numbers for (key, counter); equal arguments give equal numbers on every machine.
[[nodiscard]] std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                                  std::uint64_t counter_low) noexcept;

/// Uniform in [0, 1) with 53 random bits.
[[nodiscard]] double uniform(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low) noexcept;

/// Fills `out` with normal numbers of that deviation (Box-Muller over the counters (row, 0), (row, 1), ...). Fast,
/// fp32.
void fill_normal(std::span<float> out, float deviation, std::uint64_t key, std::uint64_t row) noexcept;

}  // namespace lamella
