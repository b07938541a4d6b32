#include "store/random_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "formats.h"
#include "packed.h"
#include "rank_weights.h"

namespace lamella::testing {
namespace {

constexpr WeightId matrix{Slot::query, 0}, norm{Slot::attention_norm, 0}, bias{Slot::query_bias, 0};

ResidentWeights filled(const WeightFormat& format, int threads, std::uint64_t seed) {
  ResidentWeights weights({{.id = matrix, .rows = 87, .columns = 129, .format = format},
                           {.id = norm, .rows = 1, .columns = 129},
                           {.id = bias, .rows = 1, .columns = 87}});
  ThreadTeam team(threads);
  fill_random_weights(only(weights), seed, team);
  return weights;
}

bool same(const ResidentWeights& a, const ResidentWeights& b) {
  return std::ranges::equal(a.bytes(matrix), b.bytes(matrix));
}

TEST(RandomWeights, DependOnSeedAndPositionNotOnThreads) {
  for (const WeightFormat& format : all_formats()) {
    const ResidentWeights one = filled(format, 1, 5);
    for (const int threads : {2, 3, 4}) EXPECT_TRUE(same(one, filled(format, threads, 5))) << to_string(format);
    EXPECT_FALSE(same(one, filled(format, 1, 6)));
  }
}

TEST(RandomWeights, AreNormalInEveryFormat) {
  for (const WeightFormat& format : all_formats()) {
    const ResidentWeights weights = filled(format, 2, 5);
    const std::vector<float> values = OwnedMatrix::unpack(weights.matrix(matrix));
    double sum = 0.0, square = 0.0, within = 0.0;
    for (const float value : values) {
      sum += value;
      square += double{value} * value;
      within += std::fabs(value) < 0.02F ? 1.0 : 0.0;
    }
    const auto count = static_cast<double>(values.size());
    EXPECT_NEAR(sum / count, 0.0, 0.001) << to_string(format);
    EXPECT_NEAR(std::sqrt(square / count), 0.02, 0.0008) << to_string(format);
    EXPECT_NEAR(within / count, 0.683, 0.04) << to_string(format);
    EXPECT_EQ(weights.vector(norm)[128], 1.0F);
    EXPECT_EQ(weights.vector(bias)[86], 0.0F);
  }
}

TEST(RandomWeights, NoTwoRowsAreAlike) {
  const std::vector<float> values = OwnedMatrix::unpack(filled(formats::f32, 1, 9).matrix(matrix));
  for (std::size_t row = 1; row < 87; ++row)
    for (std::size_t i = 0; i + 8 <= 129; ++i)
      EXPECT_FALSE(std::equal(values.begin() + std::ptrdiff_t(row * 129),
                              values.begin() + std::ptrdiff_t(row * 129 + 8), values.begin() + std::ptrdiff_t(i)));
}

}  // namespace
}  // namespace lamella::testing
