// Rotary frequencies: what each scaling promises. tests/python/test_families_config.py compares them with transformers.
#include <gtest/gtest.h>

#include <cmath>

#include "model/rope.h"

namespace lamella::testing {
namespace {

constexpr std::int32_t dim = 64;
RopeFrequencies plain() { return rope_frequencies({.rotary_dim = dim}, 1); }

TEST(Rope, PlainFrequenciesArePowersOfTheta) {
  const RopeFrequencies found = plain();
  ASSERT_EQ(found.inverse.size(), std::size_t{dim / 2});
  EXPECT_EQ(found.attention_factor, 1.0F);
  for (std::size_t i = 0; i < found.inverse.size(); ++i) {
    const double exact = std::pow(10000.0, -2.0 * static_cast<double>(i) / dim);
    EXPECT_NEAR(found.inverse[i] / exact, 1.0, 2e-7) << i;
  }
}

TEST(Rope, LinearScalingDividesEveryFrequency) {
  const RopeFrequencies found = rope_frequencies({.rotary_dim = dim, .scaling = RopeScaling::linear, .factor = 4}, 1);
  for (std::size_t i = 0; i < found.inverse.size(); ++i) EXPECT_EQ(found.inverse[i], plain().inverse[i] / 4);
}

TEST(Rope, DynamicScalingBeginsBeyondTheTrainedContext) {
  const RopeSpec spec{
      .rotary_dim = dim, .scaling = RopeScaling::dynamic_ntk, .factor = 2, .original_max_positions = 100};
  EXPECT_TRUE(depends_on_length(spec));
  EXPECT_EQ(rope_frequencies(spec, 1).inverse, plain().inverse);
  EXPECT_EQ(rope_frequencies(spec, 100).inverse, plain().inverse);
  const std::vector<float> beyond = rope_frequencies(spec, 200).inverse;
  EXPECT_EQ(beyond.front(), plain().inverse.front());  // the shortest wavelength stays
  // At 200 tokens the base grows by 3^(dim / (dim - 2)), so the longest wavelength grows threefold.
  EXPECT_NEAR(plain().inverse.back() / beyond.back(), 3.0, 1e-5);
}

TEST(Rope, YarnKeepsShortWavelengthsAndInterpolatesLongOnes) {
  const RopeFrequencies found = rope_frequencies(
      {.rotary_dim = dim, .scaling = RopeScaling::yarn, .factor = 8, .original_max_positions = 2048}, 1);
  EXPECT_EQ(found.inverse.front(), plain().inverse.front());
  EXPECT_NEAR(found.inverse.back() * 8, plain().inverse.back(), 1e-9);
  EXPECT_FLOAT_EQ(found.attention_factor, static_cast<float>(0.1 * std::log(8.0) + 1));
}

TEST(Rope, YarnTakesItsMagnitudeFromMscaleOrTheConfig) {
  RopeSpec spec{.rotary_dim = dim, .scaling = RopeScaling::yarn, .factor = 8, .original_max_positions = 2048};
  spec.mscale = 0.5;
  EXPECT_FLOAT_EQ(rope_frequencies(spec, 1).attention_factor,
                  static_cast<float>(0.1 * std::log(8.0) + 1));  // needs both
  spec.mscale_all_dim = 0.5;
  EXPECT_FLOAT_EQ(rope_frequencies(spec, 1).attention_factor, 1.0F);
  spec.attention_factor = 1.25;
  EXPECT_FLOAT_EQ(rope_frequencies(spec, 1).attention_factor, 1.25F);
}

TEST(Rope, LongropeSwitchesItsDivisorsAtTheTrainedContext) {
  RopeSpec spec{.rotary_dim = 4, .scaling = RopeScaling::longrope, .factor = 4, .original_max_positions = 64};
  spec.short_factor = {1, 2};
  spec.long_factor = {3, 8};
  const std::vector<float> base = rope_frequencies({.rotary_dim = 4}, 1).inverse;
  EXPECT_FLOAT_EQ(rope_frequencies(spec, 64).inverse[1], base[1] / 2);
  EXPECT_FLOAT_EQ(rope_frequencies(spec, 65).inverse[1], base[1] / 8);
  EXPECT_FLOAT_EQ(rope_frequencies(spec, 1).attention_factor,
                  static_cast<float>(std::sqrt(1 + std::log(4.0) / std::log(64.0))));
  EXPECT_TRUE(depends_on_length(spec));
  spec.long_factor = spec.short_factor;
  EXPECT_FALSE(depends_on_length(spec));
}

TEST(Rope, Llama3DividesLongWavelengthsOnly) {
  const RopeSpec spec{.rotary_dim = dim, .scaling = RopeScaling::llama3, .factor = 32, .original_max_positions = 8192};
  const std::vector<float> found = rope_frequencies(spec, 1).inverse;
  const std::vector<float> base = plain().inverse;
  EXPECT_EQ(found.front(), base.front());
  EXPECT_EQ(found.back(), base.back() / 32);  // wavelength 47 000 of 8192
  for (std::size_t i = 1; i < found.size(); ++i) EXPECT_LT(found[i], found[i - 1]) << i;
  EXPECT_FALSE(depends_on_length(spec));
}

}  // namespace
}  // namespace lamella::testing
