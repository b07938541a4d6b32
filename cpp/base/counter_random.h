// Random numbers without state: a pure function of a key and a counter (Philox 4x32-10; Salmon et al., SC 2011).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace lamella {

/// Four independent 32-bit numbers for (key, counter); equal arguments give equal numbers on every machine.
[[nodiscard]] std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                                  std::uint64_t counter_low) noexcept;

/// Uniform in [0, 1) with 53 random bits.
[[nodiscard]] double uniform(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low) noexcept;

/// Normal numbers in bulk, for filling weights: random bits choose among 8192 quantiles of the distribution, which end
/// at 3.8 deviations. A table that stays in L1 in place of logarithms and cosines.
class NormalNumbers {
 public:
  NormalNumbers();
  /// Fills `out` with numbers of that deviation, a function of key, row and place alone.
  void fill(std::span<float> out, float deviation, std::uint64_t key, std::uint64_t row) const noexcept;

 private:
  std::vector<float> quantiles_;  // of the positive half, in order
};

}  // namespace lamella
