// Rotated weights in float64 (memory/rotation.h), from the definition of Hadamard's matrix: entry (r, c) is -1 to the
// number of bits that r and c share.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace lamella::testing {

/// A row times H / B.
inline std::vector<double> rotated64(std::span<const float> row) {
  const auto inputs = static_cast<std::uint64_t>(row.size());
  std::uint64_t block = 1;
  while (block < 64 && inputs % (2 * block) == 0) block *= 2;
  const std::uint64_t lines = inputs / block;
  std::vector<double> out(row.size());
  for (std::uint64_t r = 0; r < block; ++r)
    for (std::uint64_t i = 0; i < lines; ++i) {
      double sum = 0.0;
      for (std::uint64_t c = 0; c < block; ++c)
        sum += std::popcount(r & c) % 2 == 0 ? row[c * lines + i] : -row[c * lines + i];
      out[r * lines + i] = sum / static_cast<double>(block);
    }
  return out;
}

}  // namespace lamella::testing
