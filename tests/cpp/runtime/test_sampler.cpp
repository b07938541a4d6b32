#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "../failing_new.h"
#include "../seed.h"
#include "base/counter_random.h"
#include "lamella/error.h"
#include "sampling_reference.h"

namespace lamella::testing {
namespace {

constexpr float never = -INFINITY;

std::int32_t choose(const std::vector<float>& logits, const SamplingParams& params, std::int64_t position = 0) {
  SamplerScratch scratch;
  return Sampler::token_at(position, logits, params, 0, scratch);
}

/// Draws at many positions; counts by token.
std::vector<int> draws(const std::vector<float>& logits, const SamplingParams& params, int count) {
  std::vector<int> counts(logits.size());
  SamplerScratch scratch;
  for (int position = 0; position < count; ++position)
    ++counts[static_cast<std::size_t>(Sampler::token_at(position, logits, params, 0, scratch))];
  return counts;
}

/// Logits of a kind that is drawn too: smooth, with many equal ones, with masked ones, very far apart, all equal.
std::vector<float> draw_logits(std::mt19937_64& random, std::size_t vocabulary) {
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> logits(vocabulary);
  const auto kind = random() % 6;
  for (float& logit : logits) {
    logit = normal(random);
    if (kind == 1) logit = std::round(logit);
    if (kind == 2 && random() % 3 == 0) logit = never;
    if (kind == 3) logit *= 1e4F;
    if (kind == 4) logit = 1.5F;
    if (kind == 5) logit *= 1e-3F;
  }
  logits[random() % vocabulary] = 2.0F;  // one at least is finite
  return logits;
}

std::vector<std::int32_t> draw_tokens(std::mt19937_64& random, std::size_t count, std::size_t vocabulary) {
  std::vector<std::int32_t> tokens(count);
  const std::size_t few = 1 + random() % vocabulary;  // so that they repeat
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random() % few);
  return tokens;
}

/// Any combination of the parameters that `validate` accepts.
SamplingParams draw_params(std::mt19937_64& random, std::size_t vocabulary) {
  const auto one_in = [&](int n) { return random() % static_cast<unsigned>(n) == 0; };
  const auto between = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  SamplingParams params;
  params.temperature = one_in(8) ? 0.0 : std::exp(between(-2.0, 3.0));
  if (one_in(3)) params.top_k = static_cast<std::int32_t>(1 + random() % vocabulary);
  if (one_in(6)) params.top_k = static_cast<std::int32_t>(1 + random() % std::min<std::size_t>(vocabulary, 5));
  if (one_in(2)) params.top_p = one_in(5) ? between(0.99, 1.0) : between(0.001, 1.0);
  if (one_in(2)) params.min_p = one_in(5) ? 1.0 : between(0.0, 0.3);
  if (one_in(3)) params.repetition_penalty = between(0.5, 2.0);
  if (one_in(3)) params.presence_penalty = between(-2.0, 2.0);
  if (one_in(3)) params.frequency_penalty = between(-2.0, 2.0);
  if (one_in(3)) params.no_repeat_ngram_size = static_cast<std::int64_t>(1 + random() % 4);
  if (one_in(3)) {
    const auto first = static_cast<std::int32_t>(random() % vocabulary);
    params.logit_bias.push_back({first, static_cast<float>(between(-5.0, 5.0))});
    if (first > 0) params.logit_bias.push_back({0, one_in(2) ? never : 3.0F});
  }
  if (one_in(4)) params.allowed_token_ids = draw_tokens(random, 1 + random() % 20, vocabulary);
  if (one_in(3))
    for (int i = 0; i < 5; ++i) params.bad_words.push_back(draw_tokens(random, 1 + random() % 3, vocabulary));
  if (one_in(3)) params.stop_token_ids = draw_tokens(random, 1 + random() % 3, vocabulary);
  params.min_tokens = static_cast<std::int64_t>(random() % 30);
  params.seed = random();
  return params;
}

TEST(Philox, GivesTheReferenceVectorsOfItsAuthors) {
  // Random123's known answers for philox4x32-10: counter and key all zero, and all ones.
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ULL, ~0ULL, ~0ULL), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(choose({1.0F, 3.0F, 3.0F, -1.0F}, {}), 1);
  std::vector<float> many(1000, -5.0F);
  many[130] = many[131] = many[999] = 2.0F;
  EXPECT_EQ(choose(many, {}), 130);
}

TEST(Sampler, SameSeedAndPositionGiveTheSameToken) {
  const std::vector<float> logits(50, 0.0F);
  const SamplingParams one{.temperature = 1.0, .seed = 7}, other{.temperature = 1.0, .seed = 8};
  int different = 0;
  for (int position = 0; position < 100; ++position) {
    EXPECT_EQ(choose(logits, one, position), choose(logits, one, position));
    different += choose(logits, one, position) != choose(logits, other, position) ? 1 : 0;
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
  const std::vector<int> counts = draws({never, 0.0F, never}, {.temperature = 2.0}, 500);
  EXPECT_EQ(counts[1], 500);
}

/// Every parameter in every combination against the definitions; the draw against the distribution's own sums.
TEST(Sampler, GivesTheDistributionAndTheTokenThatTheDefinitionsGive) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  SamplerScratch scratch;  // the same for all, so that what it held before could show
  int compared = 0, masked = 0;
  const int rounds = full_stage() ? 20000 : 3000;
  for (int round = 0; round < rounds; ++round) {
    const std::size_t sizes[] = {1, 2, 63, 64, 65, 200, 1000, 7000};
    const std::size_t vocabulary = sizes[random() % std::size(sizes)];
    const std::vector<float> logits = draw_logits(random, vocabulary);
    const SamplingParams params = draw_params(random, vocabulary);
    ASSERT_NO_THROW(validate(SamplingParams(params), static_cast<std::int64_t>(vocabulary)));
    const std::vector<std::int32_t> prompt = draw_tokens(random, 1 + random() % 40, vocabulary);
    const std::vector<std::int32_t> generated = draw_tokens(random, random() % 40, vocabulary);
    Sampler sampler(params, prompt, static_cast<std::int64_t>(vocabulary), 3);
    for (const std::int32_t token : generated) sampler.accept(token);

    const Reference expected = reference_distribution(logits, params, prompt, generated);
    if (expected.all_masked) {
      EXPECT_THROW(static_cast<void>(sampler.next(logits, scratch)), Error);
      ++masked;
      continue;
    }
    if (expected.on_a_border) continue;  // where rounding decides, one of two neighbours is kept
    const std::vector<double> found = sampler.distribution(logits, scratch);
    ASSERT_EQ(found.size(), expected.probabilities.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      // The sampler's weights end at e^-708; the reference's a little before.
      const double probability = expected.probabilities[i];
      if (probability == 0.0) {
        ASSERT_LT(found[i], 1e-295) << "round " << round << ", token " << i;
      } else {
        ASSERT_NEAR(found[i], probability, 1e-13 * (1.0 + expected.spread) * probability)
            << "round " << round << ", token " << i;
      }
    }

    const std::int32_t token = sampler.next(logits, scratch).token;
    const double target = uniform(params.seed, 3, prompt.size() + generated.size());
    double before = 0.0;
    for (std::int32_t i = 0; i < token; ++i) before += expected.probabilities[static_cast<std::size_t>(i)];
    const double own = expected.probabilities[static_cast<std::size_t>(token)];
    EXPECT_GT(own, 0.0);
    if (params.temperature > 0.0) {
      EXPECT_GE(target, before - 1e-9) << "round " << round;
      EXPECT_LE(target, before + own + 1e-9) << "round " << round;
    }
    ++compared;
  }
  EXPECT_GT(compared, rounds / 2);
  EXPECT_GT(masked, 0);
}

/// Draws of a sequence with a history, by chi-square: the statistic of k cells is near k, and beyond k + 8 sqrt(2k) once
/// in far more than a million runs.
TEST(Sampler, DrawsFollowTheDistribution) {
  if (lamella::testing::sanitized) GTEST_SKIP() << "millions of draws: half a minute where a sanitizer slows them down";
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  SamplerScratch scratch;
  for (int round = 0; round < 30; ++round) {
    const std::size_t vocabulary = 100;
    std::vector<float> logits = draw_logits(random, vocabulary);
    for (float& logit : logits) logit = std::clamp(logit, -8.0F, 8.0F);
    SamplingParams params = draw_params(random, vocabulary);
    params.temperature = std::max(params.temperature, 0.5);
    const std::vector<std::int32_t> prompt = draw_tokens(random, 10, vocabulary);
    const Reference expected = reference_distribution(logits, params, prompt, {});
    if (expected.all_masked || expected.on_a_border) continue;
    constexpr int count = 20000;
    std::vector<int> counts(vocabulary);
    for (int i = 0; i < count; ++i) {
      const Sampler sampler(params, prompt, 100, static_cast<std::uint32_t>(i));
      ++counts[static_cast<std::size_t>(sampler.next(logits, scratch).token)];
    }
    double statistic = 0.0, rest = 0.0, rest_expected = 0.0;
    int cells = 0;
    for (std::size_t i = 0; i < vocabulary; ++i) {
      const double mean = expected.probabilities[i] * count;
      ASSERT_TRUE(counts[i] == 0 || expected.probabilities[i] > 0.0) << "token " << i;
      if (mean < 10.0) {
        rest += counts[i];
        rest_expected += mean;
      } else {
        statistic += (counts[i] - mean) * (counts[i] - mean) / mean;
        ++cells;
      }
    }
    if (rest_expected >= 10.0) statistic += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
    EXPECT_LT(statistic, cells + 1 + 8.0 * std::sqrt(2.0 * (cells + 1)) + 20.0) << "round " << round;
  }
}

TEST(Sampler, IsPure) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  SamplerScratch used;
  for (int round = 0; round < 300; ++round) {
    const std::size_t vocabulary = 1 + random() % 3000;
    const std::vector<float> logits = draw_logits(random, vocabulary);
    SamplingParams params = draw_params(random, vocabulary);
    params.logprobs = 3;
    params.allowed_token_ids.clear();
    params.bad_words.clear();
    const Sampler sampler(params, std::vector<std::int32_t>{0}, static_cast<std::int64_t>(vocabulary), 0);
    SamplerScratch fresh;
    try {
      const Sampled first = sampler.next(logits, used), second = sampler.next(logits, fresh);
      EXPECT_EQ(first.token, second.token);
      ASSERT_EQ(first.logprobs.size(), second.logprobs.size());
      for (std::size_t i = 0; i < first.logprobs.size(); ++i)
        EXPECT_EQ(first.logprobs[i].logprob, second.logprobs[i].logprob);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::numeric);
    }
  }
}

TEST(Sampler, TellsTheLogprobsOfTheModelsOwnLogits) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  SamplerScratch scratch;
  for (int round = 0; round < 500; ++round) {
    const std::size_t vocabulary = 1 + random() % 500;
    const std::vector<float> logits = draw_logits(random, vocabulary);
    SamplingParams params{.temperature = 3.0, .repetition_penalty = 1.7, .seed = random()};
    params.logprobs = static_cast<std::int32_t>(random() % 21);
    const Sampler sampler(params, std::vector<std::int32_t>{0}, static_cast<std::int64_t>(vocabulary), 0);
    const Sampled sampled = sampler.next(logits, scratch);

    std::vector<std::int32_t> order(vocabulary);
    for (std::size_t i = 0; i < vocabulary; ++i) order[i] = static_cast<std::int32_t>(i);
    const auto logit = [&](std::int32_t token) { return logits[static_cast<std::size_t>(token)]; };
    std::ranges::stable_sort(order, [&](auto a, auto b) { return logit(a) > logit(b); });
    long double total = 0.0L;
    for (const float one : logits) total += std::exp(static_cast<long double>(one) - logit(order[0]));
    const auto check_entry = [&](const TokenLogprob& entry, std::int32_t token) {
      EXPECT_EQ(entry.token, token);
      EXPECT_EQ(order[static_cast<std::size_t>(entry.rank) - 1], token);
      const auto expected =
          static_cast<float>(static_cast<long double>(logit(token)) - logit(order[0]) - std::log(total));
      if (expected == never) {
        EXPECT_EQ(entry.logprob, never);
      } else {
        EXPECT_NEAR(entry.logprob, expected, 1e-6 * (1.0 + std::abs(expected)));
      }
    };
    const std::size_t best = std::min(vocabulary, static_cast<std::size_t>(*params.logprobs));
    ASSERT_EQ(sampled.logprobs.size(), best + 1);
    check_entry(sampled.logprobs[0], sampled.token);
    for (std::size_t i = 0; i < best; ++i) check_entry(sampled.logprobs[i + 1], order[i]);

    const auto known = static_cast<std::int32_t>(random() % vocabulary);
    const std::vector<TokenLogprob> of_prompt = token_logprobs(logits, known, 2, scratch);
    ASSERT_EQ(of_prompt.size(), 1 + std::min<std::size_t>(2, vocabulary));
    check_entry(of_prompt[0], known);
    for (std::size_t i = 1; i < of_prompt.size(); ++i) check_entry(of_prompt[i], order[i - 1]);
  }
  EXPECT_TRUE(Sampler({}, {}, 2, 0).next(std::vector{0.0F, 1.0F}, scratch).logprobs.empty());
}

TEST(Sampler, CountsStopTokensOutUntilTheMinimum) {
  SamplingParams params{.min_tokens = 2};
  params.stop_token_ids = {1};
  Sampler sampler(params, std::vector<std::int32_t>{0, 0, 0}, 3, 0);
  SamplerScratch scratch;
  const std::vector<float> logits = {0.0F, 9.0F, 1.0F};
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(sampler.next(logits, scratch).token, 2);
    sampler.accept(2);
  }
  EXPECT_EQ(sampler.next(logits, scratch).token, 1);
}

TEST(Sampler, BansWhatWouldRepeatARunOfTokens) {
  SamplerScratch scratch;
  const std::vector<float> logits = {2.0F, 1.0F, 0.0F};
  const auto next = [&](std::int64_t n, const std::vector<std::int32_t>& prompt) {
    SamplingParams params;
    params.no_repeat_ngram_size = n;
    return Sampler(params, prompt, 3, 0).next(logits, scratch).token;
  };
  EXPECT_EQ(next(1, {0}), 1);
  EXPECT_EQ(next(1, {1, 0}), 2);
  EXPECT_EQ(next(2, {0}), 0);
  EXPECT_EQ(next(2, {0, 0}), 1);
  EXPECT_EQ(next(2, {1, 0, 1}), 1);
  EXPECT_EQ(next(3, {0, 0}), 0);
  EXPECT_EQ(next(3, {0, 0, 0}), 1);
}

TEST(Sampler, RefusesNaNAndHopelessLogits) {
  const auto code = [](const std::vector<float>& logits) {
    try {
      static_cast<void>(choose(logits, {}));
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(code({1.0F, NAN}), ErrorCode::numeric);
  EXPECT_EQ(code({1.0F, INFINITY}), ErrorCode::numeric);
  EXPECT_EQ(code({never, never}), ErrorCode::numeric);
  for (std::size_t place : {0, 63, 64, 100, 127, 128, 129}) {
    for (const float bad : {NAN, -NAN, INFINITY}) {
      std::vector<float> logits(130, 0.5F);
      logits[place] = bad;
      EXPECT_EQ(code(logits), ErrorCode::numeric);
    }
  }
}

/// What `next` throws, as code and text.
std::pair<ErrorCode, std::string> failure(const std::vector<float>& logits, const SamplingParams& params,
                                          const std::vector<std::int32_t>& prompt) {
  SamplerScratch scratch;
  const Sampler sampler(params, prompt, static_cast<std::int64_t>(logits.size()), 0);
  try {
    static_cast<void>(sampler.next(logits, scratch));
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {ErrorCode::internal, "nothing was thrown"};
}

TEST(Sampler, NamesTheParametersThatMaskedEveryToken) {
  using Failure = std::pair<ErrorCode, std::string>;
  const std::vector<float> logits = {1.0F, 2.0F};
  const auto masked_by = [](const std::string& names) {
    return Failure(ErrorCode::numeric, "no token is left to choose: " + names + " masked them all");
  };
  SamplingParams params;
  params.bad_words = {{0}, {1}};
  EXPECT_EQ(failure(logits, params, {0}), masked_by("bad_words"));
  params = {};
  params.no_repeat_ngram_size = 1;
  EXPECT_EQ(failure(logits, params, {0, 1}), masked_by("no_repeat_ngram_size"));
  params = {.min_tokens = 1, .temperature = 1.0};
  params.allowed_token_ids = {1};
  params.stop_token_ids = {1};
  EXPECT_EQ(failure(logits, params, {0}), masked_by("allowed_token_ids, min_tokens"));
  params = {};
  params.logit_bias = {{0, never}, {1, never}};
  EXPECT_EQ(failure(logits, params, {0}), masked_by("logit_bias"));
  params = {};
  params.allowed_token_ids = {0};
  EXPECT_EQ(failure({never, 1.0F}, params, {0}), masked_by("allowed_token_ids"));
}

TEST(Sampler, RefusesABiasOrPenaltyThatLeavesFp32) {
  SamplingParams params;
  params.logit_bias = {{1, 3e38F}};
  EXPECT_EQ(failure({1.0F, 3e38F}, params, {0}).first, ErrorCode::numeric);
  EXPECT_EQ(failure({1.0F, 3e38F}, params, {0}).second.find("logit_bias 3e+38 takes the logit of token 1"), 0U);
  params = {.repetition_penalty = 1e-30};
  EXPECT_EQ(failure({1e20F, 0.0F}, params, {0}).second.find("repetition_penalty 1e-30 takes the logit of token 0"), 0U);
  params = {.repetition_penalty = 1e30};
  EXPECT_EQ(failure({-1e20F, 0.0F}, params, {0}).second.find("repetition_penalty 1e+30 takes"), 0U);
  EXPECT_EQ(failure({never, 0.0F}, params, {0}).second, "nothing was thrown");
}

TEST(Sampler, AcceptsMaxTokensWithoutAllocating) {
  SamplingParams params{
      .max_tokens = 500, .repetition_penalty = 1.2, .presence_penalty = 1.0, .frequency_penalty = 1.0};
  params.no_repeat_ngram_size = 3;
  params.bad_words = {{1, 2}};
  for (const bool with_features : {true, false}) {
    Sampler sampler(with_features ? params : SamplingParams{}, std::vector<std::int32_t>{1, 2, 3}, 300, 0);
    const FailingNew first(0);
    for (std::int32_t i = 0; i < 500; ++i) sampler.accept(i * 7 % 300);
    EXPECT_FALSE(first.failed());
  }
}

}  // namespace
}  // namespace lamella::testing
