#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "lamella/error.h"
#include "runtime/sampler.h"

namespace lamella::testing {
namespace {

using Change = std::function<void(SamplingParams&)>;

/// What `validate` says of the defaults with one change, for a vocabulary of 100; empty where it passes.
std::string refusal(const Change& change) {
  SamplingParams params;
  change(params);
  try {
    validate(params, 100);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "";
}

TEST(ValidateSampling, AcceptsBothEndsOfEveryRange) {
  const std::vector<Change> accepted = {
      [](auto&) {},
      [](auto& p) { p.max_tokens = 1; },
      [](auto& p) { p.max_tokens = p.min_tokens = 7; },
      [](auto& p) { p.temperature = 1e-6; },
      [](auto& p) { p.temperature = 1e308; },
      [](auto& p) { p.top_k = 100; },
      [](auto& p) { p.top_p = 1e-300; },
      [](auto& p) { p.min_p = 1.0; },
      [](auto& p) { p.repetition_penalty = 1e-30; },
      [](auto& p) { p.presence_penalty = -2.0; },
      [](auto& p) { p.frequency_penalty = 2.0; },
      [](auto& p) { p.no_repeat_ngram_size = 1LL << 40; },
      [](auto& p) { p.logit_bias = {{0, 1000.0F}, {99, -INFINITY}}; },
      [](auto& p) { p.allowed_token_ids = {0, 99, 99}; },
      [](auto& p) { p.bad_words = {{0}, {99, 0, 99}}; },
      [](auto& p) { p.n = 128; },
      [](auto& p) { p.logprobs = 0; },
      [](auto& p) { p.logprobs = p.prompt_logprobs = 20; },
      [](auto& p) { p.stop_token_ids = {0, 99}; },
      [](auto& p) { p.seed = ~0ULL; },
  };
  for (std::size_t i = 0; i < accepted.size(); ++i) EXPECT_EQ(refusal(accepted[i]), "") << "entry " << i;
}

TEST(ValidateSampling, NamesTheFieldWhatItFoundAndWhatItExpected) {
  const std::vector<std::pair<Change, std::string>> refused = {
      {[](auto& p) { p.max_tokens = 0; }, "max_tokens is 0; expected at least 1, or 0 together with prompt_logprobs"},
      {[](auto& p) { p.min_tokens = -1; }, "min_tokens is -1; expected 0 to max_tokens, which is 256"},
      {[](auto& p) { p.min_tokens = 257; }, "min_tokens is 257; expected 0 to max_tokens, which is 256"},
      {[](auto& p) { p.temperature = -1.0; }, "temperature is -1; expected a number from 0 up"},
      {[](auto& p) { p.temperature = NAN; }, "temperature is nan; expected a number from 0 up"},
      {[](auto& p) { p.temperature = INFINITY; }, "temperature is inf; expected a number from 0 up"},
      {[](auto& p) { p.temperature = 1e-30; }, "temperature is 1e-30; expected 0 (greedy) or at least 1e-6"},
      {[](auto& p) { p.top_k = 101; }, "top_k is 101; expected 0 (all) to the vocabulary's 100"},
      {[](auto& p) { p.top_k = -1; }, "top_k is -1; expected 0 (all) to the vocabulary's 100"},
      {[](auto& p) { p.top_p = 0.0; }, "top_p is 0; expected a number above 0 and at most 1"},
      {[](auto& p) { p.top_p = 1.5; }, "top_p is 1.5; expected a number above 0 and at most 1"},
      {[](auto& p) { p.top_p = NAN; }, "top_p is nan; expected a number above 0 and at most 1"},
      {[](auto& p) { p.min_p = -0.1; }, "min_p is -0.1; expected a number from 0 to 1"},
      {[](auto& p) { p.min_p = 1.1; }, "min_p is 1.1; expected a number from 0 to 1"},
      {[](auto& p) { p.min_p = NAN; }, "min_p is nan; expected a number from 0 to 1"},
      {[](auto& p) { p.repetition_penalty = 0.0; }, "repetition_penalty is 0; expected a finite number above 0"},
      {[](auto& p) { p.repetition_penalty = 1e-50; }, "repetition_penalty is 1e-50; expected a finite number above 0"},
      {[](auto& p) { p.repetition_penalty = 1e39; }, "repetition_penalty is 1e+39; expected a finite number above 0"},
      {[](auto& p) { p.repetition_penalty = NAN; }, "repetition_penalty is nan; expected a finite number above 0"},
      {[](auto& p) { p.presence_penalty = 2.1; }, "presence_penalty is 2.1; expected a number from -2 to 2"},
      {[](auto& p) { p.presence_penalty = NAN; }, "presence_penalty is nan; expected a number from -2 to 2"},
      {[](auto& p) { p.frequency_penalty = -3.0; }, "frequency_penalty is -3; expected a number from -2 to 2"},
      {[](auto& p) { p.frequency_penalty = NAN; }, "frequency_penalty is nan; expected a number from -2 to 2"},
      {[](auto& p) { p.no_repeat_ngram_size = -1; }, "no_repeat_ngram_size is -1; expected 0 (off) or more"},
      {[](auto& p) { p.logit_bias = {{100, 1.0F}}; }, "logit_bias is 100; expected ids from 0 to 99"},
      {[](auto& p) { p.logit_bias = {{-1, 1.0F}}; }, "logit_bias is -1; expected ids from 0 to 99"},
      {[](auto& p) { p.logit_bias = {{5, INFINITY}}; },
       "logit_bias of token 5 is inf; expected a finite number, or -infinity to ban the token"},
      {[](auto& p) { p.logit_bias = {{5, NAN}}; },
       "logit_bias of token 5 is nan; expected a finite number, or -infinity to ban the token"},
      {[](auto& p) { p.logit_bias = {{5, 1.0F}, {6, 1.0F}, {5, 2.0F}}; },
       "logit_bias is given twice for token 5; expected each token once"},
      {[](auto& p) { p.allowed_token_ids = {5, 100}; }, "allowed_token_ids is 100; expected ids from 0 to 99"},
      {[](auto& p) { p.allowed_token_ids = {-5}; }, "allowed_token_ids is -5; expected ids from 0 to 99"},
      {[](auto& p) { p.bad_words = {{5}, {6, 100}}; }, "bad_words is 100; expected ids from 0 to 99"},
      {[](auto& p) { p.bad_words = {{-1, 6}}; }, "bad_words is -1; expected ids from 0 to 99"},
      {[](auto& p) { p.bad_words = {{5}, {}}; }, "bad_words is an empty sequence; expected at least one token in each"},
      {[](auto& p) { p.n = 0; }, "n is 0; expected 1 to 128"},
      {[](auto& p) { p.n = 129; }, "n is 129; expected 1 to 128"},
      {[](auto& p) { p.logprobs = -1; }, "logprobs is -1; expected 0 to 20"},
      {[](auto& p) { p.logprobs = 21; }, "logprobs is 21; expected 0 to 20"},
      {[](auto& p) { p.prompt_logprobs = -1; }, "prompt_logprobs is -1; expected 0 to 20"},
      {[](auto& p) { p.prompt_logprobs = 21; }, "prompt_logprobs is 21; expected 0 to 20"},
      {[](auto& p) { p.stop_token_ids = {5, 100}; }, "stop_token_ids is 100; expected ids from 0 to 99"},
      {[](auto& p) { p.stop_token_ids = {-1}; }, "stop_token_ids is -1; expected ids from 0 to 99"},
  };
  for (const auto& [change, message] : refused) EXPECT_EQ(refusal(change), message);
}

}  // namespace
}  // namespace lamella::testing
