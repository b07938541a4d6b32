#include "base/counter_random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace lamella {

std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low) noexcept {
  constexpr std::uint64_t multiplier_0 = 0xD2511F53, multiplier_1 = 0xCD9E8D57;
  constexpr std::uint32_t weyl_0 = 0x9E3779B9, weyl_1 = 0xBB67AE85;
  constexpr int rounds = 10;
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> c = {
      static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
      static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)};
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t p0 = multiplier_0 * c[0], p1 = multiplier_1 * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += weyl_0;
    k1 += weyl_1;
  }
  return c;
}

double uniform(std::uint64_t key, std::uint64_t counter_high, std::uint64_t counter_low) noexcept {
  const std::array<std::uint32_t, 4> words = philox(key, counter_high, counter_low);
  const std::uint64_t bits = (std::uint64_t{words[0]} << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

NormalNumbers::NormalNumbers() : quantiles_(1 << 12) {
  const double density_at_0 = 1.0 / std::sqrt(2.0 * std::numbers::pi);
  const auto density = [&](double x) { return density_at_0 * std::exp(-0.5 * x * x); };
  double x = 0.0;
  for (std::size_t i = 0; i < quantiles_.size(); ++i) {
    // The probability above x, which keeps its precision in the tail. From one quantile to the next is a short way for
    // Newton: four steps are more than enough.
    const double above = 0.5 - (static_cast<double>(i) + 0.5) * 0x1p-13;
    for (int step = 0; step < 4; ++step) x += (0.5 * std::erfc(x / std::numbers::sqrt2) - above) / density(x);
    quantiles_[i] = static_cast<float>(x);
  }
}

void NormalNumbers::fill(std::span<float> out, float deviation, std::uint64_t key, std::uint64_t row) const noexcept {
  const std::array<std::uint32_t, 4> start = philox(key, row, 0);
  const std::uint64_t first = std::uint64_t{start[0]} << 32 | start[1];
  const auto number = [&](std::uint64_t bits) {
    const float magnitude = deviation * quantiles_[bits & 0xfffU];
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | static_cast<std::uint32_t>(bits & 0x8000U)
                                                                              << 16);
  };
  for (std::size_t i = 0; i < out.size(); i += 4) {
    // SplitMix64 (Steele et al., OOPSLA 2014) along the row: a fifth of Philox's time, and no two rows near each other.
    std::uint64_t z = first + (i / 4) * 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    z ^= z >> 31;
    const std::array<float, 4> numbers = {number(z), number(z >> 16), number(z >> 32), number(z >> 48)};
    std::copy_n(numbers.begin(), std::min<std::size_t>(4, out.size() - i), out.begin() + std::ptrdiff_t(i));
  }
}

}  // namespace lamella
