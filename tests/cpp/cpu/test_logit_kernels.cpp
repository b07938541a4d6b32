// The loops that choose tokens give the same bits on every instruction set of this machine, one by one and together.
#include "cpu/kernels/logit_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../seed.h"
#include "runtime/sampler.h"

namespace lamella::cpu::testing {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float lowest = std::numeric_limits<float>::lowest();

/// Drawn afresh, of a kind that is drawn too: smooth, tied, with a third masked, mostly masked, far apart, denormal,
/// all equal. Not on a vector's border.
class Logits {
 public:
  Logits(std::mt19937_64& random, std::size_t count) : memory_(count + 1) {
    std::normal_distribution<float> normal(0.0F, 3.0F);
    const auto kind = random() % 7;
    for (float& logit : memory_) {
      logit = normal(random);
      if (kind == 1) logit = std::round(logit);
      if ((kind == 2 && random() % 3 == 0) || (kind == 3 && random() % 200 != 0)) logit = -infinity;
      if (kind == 4) logit *= 1e37F;
      if (kind == 5) logit *= 1e-40F;
      if (kind == 6) logit = -1.5F;
      logit = std::clamp(logit, -infinity, std::numeric_limits<float>::max());
    }
    if (count > 0) memory_[1 + random() % count] = 2.0F;  // one at least is finite
  }
  [[nodiscard]] std::span<float> all() { return std::span(memory_).subspan(1); }

 private:
  std::vector<float> memory_;
};

template <typename Number>
bool same_bits(const std::vector<Number>& a, const std::vector<Number>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(Number)) == 0);
}

class LogitKernelsOf : public ::testing::TestWithParam<KernelSet> {
 protected:
  [[nodiscard]] static const LogitKernels& kernels() { return logit_kernels(GetParam()); }
  std::uint64_t seed_ = lamella::testing::fresh_seed();
  ::testing::ScopedTrace trace_{__FILE__, __LINE__, seed_};
  std::mt19937_64 random_{seed_};
};

TEST_P(LogitKernelsOf, GiveTheBitsOfThePlainOnes) {
  const LogitKernels& plain = plain_logit_kernels;
  for (int round = 0; round < 1000; ++round) {
    const std::size_t count = random_() % 12;
    Logits drawn(random_, count * logit_block);
    const std::span<float> logits = drawn.all();
    std::vector<float> maxima(count), own_maxima(count);
    EXPECT_TRUE(plain.find_maxima(logits.data(), count, maxima.data()));
    EXPECT_TRUE(kernels().find_maxima(logits.data(), count, own_maxima.data()));
    EXPECT_EQ(maxima, own_maxima);
    const LogitBlocks blocks = {logits.data(), maxima.data(), count};
    const float best = count == 0 ? 0.0F : std::ranges::max(maxima);

    // Some logit, or the next above it, or none: so that there are blocks to leave out.
    const auto draw_least = [&] {
      const float some = count == 0 ? 0.0F : logits[random_() % logits.size()];
      const float least = random_() % 2 == 0 ? some : std::nextafter(some, infinity);
      return random_() % 3 == 0 ? lowest : std::max(least, lowest);
    };
    const double temperature = std::exp(std::uniform_real_distribution<double>(-5.0, 8.0)(random_));
    const LogitWeight weight = {best, 1.0 / temperature, draw_least()};
    // NaN shows what was left unwritten: the same places by both.
    std::vector<double> weights(logits.size(), NAN), own_weights = weights, sums(count, NAN), own_sums = sums;
    plain.weigh(blocks, weight, weights.data(), sums.data());
    kernels().weigh(blocks, weight, own_weights.data(), own_sums.data());
    EXPECT_TRUE(same_bits(weights, own_weights));
    EXPECT_TRUE(same_bits(sums, own_sums));
    kernels().weigh(blocks, weight, nullptr, own_sums.data());
    EXPECT_TRUE(same_bits(sums, own_sums));

    const float narrower = std::max(weight.least, draw_least());
    EXPECT_EQ(plain.find_lowest(blocks, narrower, best), kernels().find_lowest(blocks, narrower, best));

    const float per_logit = std::exp(std::uniform_real_distribution<float>(-70.0F, 70.0F)(random_));
    const LogitPlaces place = {best, per_logit, static_cast<std::uint16_t>(random_() % 2000)};
    std::vector<std::uint16_t> places(logits.size(), 65535), own_places = places;
    plain.find_places(blocks, narrower, place, places.data());
    kernels().find_places(blocks, narrower, place, own_places.data());
    EXPECT_EQ(places, own_places);
    if (HasFailure()) FAIL() << "round " << round;
  }
}

TEST_P(LogitKernelsOf, FindNanAndInfinityWhereverTheyAre) {
  for (int round = 0; round < 2000; ++round) {
    const std::size_t count = 1 + random_() % 5;
    Logits drawn(random_, count * logit_block);
    const std::span<float> logits = drawn.all();
    logits[random_() % logits.size()] = random_() % 2 == 0 ? NAN : infinity;
    std::vector<float> maxima(count);
    ASSERT_FALSE(kernels().find_maxima(logits.data(), count, maxima.data())) << "round " << round;
  }
}

/// The sampler with these loops against itself with the plain ones, which tests/cpp/runtime compares with definitions.
TEST_P(LogitKernelsOf, DrawTheSameTokens) {
  SamplerScratch plain, own(kernels());
  for (int round = 0; round < 1000; ++round) {
    const std::size_t vocabulary = 1 + random_() % (random_() % 4 == 0 ? 9000 : 300);
    Logits drawn(random_, vocabulary);
    const auto one_in = [&](unsigned n) { return random_() % n == 0; };
    const auto between = [&](double low, double high) {
      return std::uniform_real_distribution<double>(low, high)(random_);
    };
    SamplingParams params;
    params.temperature = std::exp(between(-3.0, 5.0));
    if (one_in(3)) params.top_k = static_cast<std::int32_t>(1 + random_() % vocabulary);
    if (!one_in(3)) params.top_p = one_in(5) ? between(0.99, 1.0) : between(0.001, 1.0);
    if (one_in(3)) params.min_p = between(0.0, 0.3);
    params.seed = random_();
    params.logprobs = 2;
    const Sampler sampler(params, std::vector<std::int32_t>{0}, static_cast<std::int64_t>(vocabulary), 0);
    EXPECT_TRUE(same_bits(sampler.distribution(drawn.all(), plain), sampler.distribution(drawn.all(), own)));
    const Sampled expected = sampler.next(drawn.all(), plain), found = sampler.next(drawn.all(), own);
    EXPECT_EQ(expected.token, found.token);
    ASSERT_EQ(expected.logprobs.size(), found.logprobs.size());
    for (std::size_t i = 0; i < found.logprobs.size(); ++i)
      EXPECT_EQ(std::bit_cast<std::uint32_t>(expected.logprobs[i].logprob),
                std::bit_cast<std::uint32_t>(found.logprobs[i].logprob));
    if (HasFailure()) FAIL() << "round " << round << ", " << vocabulary << " tokens";
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, LogitKernelsOf,
                         ::testing::ValuesIn(available_kernel_sets().begin(), available_kernel_sets().end()),
                         [](const auto& set) { return std::string(to_string(set.param)); });

}  // namespace
}  // namespace lamella::cpu::testing
