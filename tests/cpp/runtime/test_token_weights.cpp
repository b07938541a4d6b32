#include "runtime/token_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "../seed.h"
#include "runtime/logit_scan.h"

namespace lamella::testing {
namespace {

TEST(ExpOfNegative, IsWithinTwoRoundingsOfTheExactValue) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  double worst = 0.0;
  const auto check = [&](double x) {
    const long double exact = std::exp(static_cast<long double>(x));
    worst = std::max(worst, static_cast<double>(std::abs(exp_of_negative(x) - exact) / exact));
  };
  for (int i = 0; i < 200000; ++i) {
    const double most = std::ldexp(708.0, -static_cast<int>(random() % 70));
    check(-std::uniform_real_distribution<double>(0.0, most)(random));
  }
  for (int k = 0; k < 1021; ++k)
    for (const double side : {0.499999, 0.5, 0.500001}) check(-(k + side) * 0.6931471805599453);
  EXPECT_LT(worst, std::ldexp(1.0, -51));
  EXPECT_EQ(exp_of_negative(0.0), 1.0);
  EXPECT_EQ(exp_of_negative(-0.0), 1.0);
  EXPECT_EQ(exp_of_negative(-708.5), 0.0);
  EXPECT_EQ(exp_of_negative(-1e300), 0.0);
  EXPECT_EQ(exp_of_negative(-INFINITY), 0.0);
}

/// The selections against a whole sort, with many equal logits and every number of tokens around a block's.
TEST(LogitScan, FindsWhatASortFinds) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  LogitScan found;
  SamplerScratch scratch;
  for (int round = 0; round < 2000; ++round) {
    const std::size_t vocabulary = 1 + random() % (random() % 2 == 0 ? 200 : 3000);
    const std::uint64_t values = 1 + random() % 5000;
    std::vector<float> logits(vocabulary);
    for (float& logit : logits) {
      logit = static_cast<float>(random() % values) - static_cast<float>(values) / 2.0F;
      if (random() % 10 == 0) logit = -INFINITY;
    }
    ASSERT_TRUE(scan(logits, found));
    std::vector<std::int32_t> order(vocabulary);
    for (std::size_t i = 0; i < vocabulary; ++i) order[i] = static_cast<std::int32_t>(i);
    const auto logit = [&](std::int32_t token) { return logits[static_cast<std::size_t>(token)]; };
    std::ranges::stable_sort(order, [&](auto a, auto b) { return logit(a) > logit(b); });
    EXPECT_EQ(found.best, logit(order[0]));
    EXPECT_TRUE(found.best == -INFINITY || best_token(found) == order[0]);
    const std::size_t k = 1 + random() % vocabulary;
    EXPECT_EQ(kth_logit(found, k, scratch.selection), logit(order[k - 1]));
    EXPECT_EQ(rank_of(found, order[k - 1]), static_cast<std::int32_t>(k));
    best_tokens(found, std::min<std::size_t>(k, 20), scratch);
    ASSERT_EQ(scratch.tokens.size(), std::min<std::size_t>(k, 20));
    for (std::size_t i = 0; i < scratch.tokens.size(); ++i) EXPECT_EQ(scratch.tokens[i].token, order[i]);
  }
}

}  // namespace
}  // namespace lamella::testing
