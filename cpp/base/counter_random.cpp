#include "base/counter_random.h"

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

void fill_normal(std::span<float> out, float deviation, std::uint64_t key, std::uint64_t row) noexcept {
  constexpr float turn = 2.0F * std::numbers::pi_v<float>;
  for (std::size_t i = 0; i < out.size(); i += 4) {
    const std::array<std::uint32_t, 4> words = philox(key, row, i / 4);
    for (std::size_t pair = 0; pair < 2; ++pair) {
      const float u = (static_cast<float>(words[2 * pair] >> 8) + 1.0F) * 0x1p-24F;  // (0, 1]: its logarithm is finite
      const float angle = static_cast<float>(words[2 * pair + 1] >> 8) * 0x1p-24F * turn;
      const float radius = deviation * std::sqrt(-2.0F * std::log(u));
      if (i + 2 * pair < out.size()) out[i + 2 * pair] = radius * std::cos(angle);
      if (i + 2 * pair + 1 < out.size()) out[i + 2 * pair + 1] = radius * std::sin(angle);
    }
  }
}

}  // namespace lamella
