// The range of every sampling parameter.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "runtime/sampler.h"

namespace lamella {
namespace {

constexpr std::int32_t most_samples = 128, most_logprobs = 20;

[[noreturn]] void refuse(std::string_view field, const auto& found, std::string_view expected) {
  throw Error(ErrorCode::invalid_argument, concat(field, " is ", found, "; expected ", expected));
}

void check_id(std::string_view field, std::int32_t token, std::int64_t vocabulary) {
  if (token < 0 || token >= vocabulary) refuse(field, token, concat("ids from 0 to ", vocabulary - 1));
}

void check_choice(const SamplingParams& params, std::int64_t vocabulary) {
  if (!(params.temperature >= 0.0) || !std::isfinite(params.temperature))
    refuse("temperature", params.temperature, "a number from 0 up");
  if (params.temperature > 0.0 && params.temperature < 1e-6)
    refuse("temperature", params.temperature, "0 (greedy) or at least 1e-6");
  if (params.top_k < 0 || params.top_k > vocabulary)
    refuse("top_k", params.top_k, concat("0 (all) to the vocabulary's ", vocabulary));
  if (!(params.top_p > 0.0 && params.top_p <= 1.0)) refuse("top_p", params.top_p, "a number above 0 and at most 1");
  if (!(params.min_p >= 0.0 && params.min_p <= 1.0)) refuse("min_p", params.min_p, "a number from 0 to 1");
}

void check_processors(const SamplingParams& params, std::int64_t vocabulary) {
  // As a float, in which it is applied, it must be neither 0 nor infinity.
  constexpr double least = std::numeric_limits<float>::min(), most = std::numeric_limits<float>::max();
  if (!(params.repetition_penalty >= least && params.repetition_penalty <= most))
    refuse("repetition_penalty", params.repetition_penalty, "a finite number above 0");
  if (!(std::abs(params.presence_penalty) <= 2.0))
    refuse("presence_penalty", params.presence_penalty, "a number from -2 to 2");
  if (!(std::abs(params.frequency_penalty) <= 2.0))
    refuse("frequency_penalty", params.frequency_penalty, "a number from -2 to 2");
  if (params.no_repeat_ngram_size < 0) refuse("no_repeat_ngram_size", params.no_repeat_ngram_size, "0 (off) or more");
  std::vector<std::int32_t> biased;
  for (const LogitBias& entry : params.logit_bias) {
    check_id("logit_bias", entry.token, vocabulary);
    if (!(entry.bias < std::numeric_limits<float>::infinity()))
      refuse(concat("logit_bias of token ", entry.token), entry.bias, "a finite number, or -infinity to ban the token");
    biased.push_back(entry.token);
  }
  std::ranges::sort(biased);
  if (const auto twice = std::ranges::adjacent_find(biased); twice != biased.end())
    refuse("logit_bias", concat("given twice for token ", *twice), "each token once");
  for (const std::int32_t token : params.allowed_token_ids) check_id("allowed_token_ids", token, vocabulary);
  for (const std::vector<std::int32_t>& word : params.bad_words) {
    if (word.empty()) refuse("bad_words", "an empty sequence", "at least one token in each");
    for (const std::int32_t token : word) check_id("bad_words", token, vocabulary);
  }
}

void check_amounts(const SamplingParams& params, std::int64_t vocabulary) {
  if (params.max_tokens < (params.prompt_logprobs ? 0 : 1))
    refuse("max_tokens", params.max_tokens, "at least 1, or 0 together with prompt_logprobs");
  if (params.min_tokens < 0 || params.min_tokens > params.max_tokens)
    refuse("min_tokens", params.min_tokens, concat("0 to max_tokens, which is ", params.max_tokens));
  if (params.n < 1 || params.n > most_samples) refuse("n", params.n, concat("1 to ", most_samples));
  const auto check_logprobs = [](std::string_view field, const std::optional<std::int32_t>& count) {
    if (count && (*count < 0 || *count > most_logprobs)) refuse(field, *count, concat("0 to ", most_logprobs));
  };
  check_logprobs("logprobs", params.logprobs);
  check_logprobs("prompt_logprobs", params.prompt_logprobs);
  for (const std::int32_t token : params.stop_token_ids) check_id("stop_token_ids", token, vocabulary);
}

}  // namespace

void validate(const SamplingParams& params, std::int64_t vocabulary) {
  check_amounts(params, vocabulary);
  check_choice(params, vocabulary);
  check_processors(params, vocabulary);
}

}  // namespace lamella
