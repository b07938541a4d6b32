// The rotation against Hadamard's matrix in float64 (rotated.h).
#include "memory/rotation.h"

#include <gtest/gtest.h>

#include <cmath>
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

TEST(Rotation, LargestWeightsStayFinite) {
  std::vector<float> w(128, 0x1p127F);
  w[5] = -0x1p127F;
  rotate_weights(w);
  for (const float value : w) EXPECT_TRUE(std::abs(value) <= 0x1p127F);
}

}  // namespace
}  // namespace lamella::testing
