#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/counter_random.h"
#include "runtime/sampler.h"

namespace lamella::testing {
namespace {

/// Draws at many positions; counts by token.
std::vector<int> draws(const std::vector<float>& logits, const SamplingParams& params, int count) {
  std::vector<int> counts(logits.size());
  for (int position = 0; position < count; ++position)
    ++counts[static_cast<std::size_t>(sample(logits, params, 0, position))];
  return counts;
}

TEST(Philox, GivesTheReferenceVectorsOfItsAuthors) {
  // Random123's known answers for philox4x32-10: counter and key all zero, and all ones.
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ULL, ~0ULL, ~0ULL), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(sample(std::vector{1.0F, 3.0F, 3.0F, -1.0F}, {}, 0, 0), 1);
}

TEST(Sampler, SameSeedAndPositionGiveTheSameToken) {
  const std::vector<float> logits(50, 0.0F);
  const SamplingParams one{.temperature = 1.0, .seed = 7}, other{.temperature = 1.0, .seed = 8};
  int different = 0;
  for (int position = 0; position < 100; ++position) {
    EXPECT_EQ(sample(logits, one, 0, position), sample(logits, one, 0, position));
    different += sample(logits, one, 0, position) != sample(logits, other, 0, position) ? 1 : 0;
  }
  EXPECT_GT(different, 80);
}

TEST(Sampler, TopKKeepsThoseEqualToTheKth) {
  const std::vector<int> counts = draws({5.0F, 4.0F, 4.0F, 1.0F}, {.temperature = 1.0, .top_k = 2}, 2000);
  EXPECT_GT(counts[1], 0);
  EXPECT_GT(counts[2], 0);
  EXPECT_EQ(counts[3], 0);
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  // Probabilities 0.5, 0.3, 0.15, 0.05: 0.8 is reached by two, 0.81 needs the third.
  const std::vector<float> logits = {std::log(0.5F), std::log(0.3F), std::log(0.15F), std::log(0.05F)};
  EXPECT_EQ(draws(logits, {.temperature = 1.0, .top_p = 0.79}, 2000)[2], 0);
  EXPECT_GT(draws(logits, {.temperature = 1.0, .top_p = 0.81}, 2000)[2], 0);
  EXPECT_EQ(draws(logits, {.temperature = 1.0, .top_p = 1e-9}, 100)[0], 100);
}

TEST(Sampler, NeverDrawsAnImpossibleToken) {
  const float never = -INFINITY;
  const std::vector<int> counts = draws({never, 0.0F, never}, {.temperature = 2.0}, 500);
  EXPECT_EQ(counts[1], 500);
}

TEST(Sampler, RefusesNaNAndHopelessLogits) {
  const auto code = [](const std::vector<float>& logits) {
    try {
      static_cast<void>(sample(logits, {}, 0, 0));
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(code({1.0F, NAN}), ErrorCode::numeric);
  EXPECT_EQ(code({1.0F, INFINITY}), ErrorCode::numeric);
  EXPECT_EQ(code({-INFINITY, -INFINITY}), ErrorCode::numeric);
}

TEST(Sampler, ValidatesEveryField) {
  const auto refused = [](const SamplingParams& params) {
    try {
      validate(params, 100);
      return std::string();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      return std::string(error.what());
    }
  };
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({.temperature = 0.7, .top_k = 100, .top_p = 0.5, .stop_token_ids = {0, 99}}), "");
  EXPECT_EQ(refused({.max_tokens = 0}).find("max_tokens"), 0U);
  for (const double temperature : {-1.0, 1e-30, static_cast<double>(NAN), static_cast<double>(INFINITY)})
    EXPECT_EQ(refused({.temperature = temperature}).find("temperature"), 0U);
  EXPECT_EQ(refused({.top_k = 101}).find("top_k"), 0U);
  EXPECT_EQ(refused({.top_k = -1}).find("top_k"), 0U);
  EXPECT_EQ(refused({.top_p = 0.0}).find("top_p"), 0U);
  EXPECT_EQ(refused({.top_p = static_cast<double>(NAN)}).find("top_p"), 0U);
  EXPECT_EQ(refused({.stop_token_ids = {100}}).find("stop_token_ids"), 0U);
}

}  // namespace
}  // namespace lamella::testing
