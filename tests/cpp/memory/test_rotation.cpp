// The rotation against Hadamard's matrix in float64 (rotated.h).
#include "memory/rotation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "rotated.h"
#include "seed.h"

namespace lamella::testing {
namespace {

std::vector<float> normal_row(std::mt19937_64& random, std::int64_t inputs) {
  std::normal_distribution<float> normal;
  std::vector<float> row(static_cast<std::size_t>(inputs));
  for (float& value : row) value = normal(random);
  return row;
}

/// x H as kernels compute it.
std::vector<float> rotated_inputs(std::vector<float> x) {
  each_rotated_run(static_cast<std::int64_t>(x.size()), [&](std::int64_t at, std::int64_t partner, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      float &a = x[static_cast<std::size_t>(at + i)], &b = x[static_cast<std::size_t>(partner + i)];
      const float sum = a + b;
      b = a - b;
      a = sum;
    }
  });
  return x;
}

TEST(Rotation, BlocksAreTheLargestPowersOfTwoUpTo64) {
  for (const auto& [inputs, block] : {std::pair{1, 1},
                                      {2, 2},
                                      {7, 1},
                                      {30, 2},
                                      {48, 16},
                                      {64, 64},
                                      {576, 64},
                                      {1536, 64},
                                      {1600, 64},
                                      {4096, 64},
                                      {11008, 64},
                                      {14336, 64},
                                      {3000, 8}})
    EXPECT_EQ(rotation_block(inputs), block) << inputs;
}

TEST(Rotation, WeightsAndInputsAreTimesHadamardsMatrix) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE("LAMELLA_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (const std::int64_t inputs : {1, 2, 3, 4, 6, 20, 33, 64, 96, 192, 576, 1000}) {
    const std::vector<float> x = normal_row(random, inputs), w = normal_row(random, inputs);
    const std::vector<float> found_x = rotated_inputs(x);
    std::vector<float> found_w = w;
    rotate_weights(found_w);
    const std::vector<double> want_w = rotated64(w), want_x = rotated64(x);
    const auto block = static_cast<double>(rotation_block(inputs));
    double plain = 0.0, rotated = 0.0, size = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(found_w[i], want_w[i], 1e-6) << inputs << ", " << i;
      EXPECT_NEAR(found_x[i], block * want_x[i], block * 1e-6) << inputs << ", " << i;
      plain += double{x[i]} * w[i];
      rotated += double{found_x[i]} * found_w[i];
      size += std::abs(double{x[i]} * w[i]);
    }
    EXPECT_NEAR(rotated, plain, 1e-6 * size) << inputs;  // x W^T stays what it was
  }
}

TEST(Rotation, SpreadsOneLargeInputOverABlock) {
  std::vector<float> x(576);
  x[100] = 64.0F;
  const std::vector<float> found = rotated_inputs(x);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(std::abs(found[i]), i % 9 == 100 % 9 ? 64.0F : 0.0F) << i;
}

TEST(Rotation, OutlyingInputsLeaveRoomForTheOthers) {
  // What one scale a token makes of a row with five large inputs whose weights are small, as models have them.
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE("LAMELLA_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto rounded = [](std::vector<float> x) {
    float largest = 0.0F;
    for (const float value : x) largest = std::max(largest, std::abs(value));
    for (float& value : x) value = std::nearbyint(value * (127.0F / largest)) * (largest / 127.0F);
    return x;
  };
  const auto product = [](const std::vector<float>& x, const std::vector<float>& w) {
    return std::inner_product(x.begin(), x.end(), w.begin(), 0.0);
  };
  double plain = 0.0, smoothed = 0.0;
  for (int n = 0; n < 100; ++n) {
    std::vector<float> x = normal_row(random, 576), w = normal_row(random, 576);
    for (const std::size_t i : {3U, 77U, 200U, 333U, 571U}) {
      x[i] *= 60.0F;
      w[i] /= 60.0F;
    }
    const double exact = product(x, w), without = product(rounded(x), w) - exact;
    rotate_weights(w);
    const double with = product(rounded(rotated_inputs(x)), w) - exact;
    plain += without * without;
    smoothed += with * with;
  }
  EXPECT_LT(smoothed, plain / 4) << std::sqrt(smoothed / plain);
}

TEST(Rotation, LargestWeightsStayFinite) {
  std::vector<float> w(128, 0x1p127F);
  w[5] = -0x1p127F;
  rotate_weights(w);
  for (const float value : w) EXPECT_TRUE(std::abs(value) <= 0x1p127F);
}

}  // namespace
}  // namespace lamella::testing
