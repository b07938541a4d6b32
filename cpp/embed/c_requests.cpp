#include "embed/c_requests.h"

#include <optional>
#include <string_view>
#include <vector>

#include "embed/c_error.h"
#include "embed/c_struct.h"

namespace lamella {
namespace {

lamella_sampling_params c_defaults() {
  const SamplingParams own;
  lamella_sampling_params params{};
  params.struct_size = sizeof params;
  params.max_tokens = own.max_tokens;
  params.min_tokens = own.min_tokens;
  params.temperature = own.temperature;
  params.top_p = own.top_p;
  params.min_p = own.min_p;
  params.top_k = own.top_k;
  params.n = own.n;
  params.repetition_penalty = own.repetition_penalty;
  params.presence_penalty = own.presence_penalty;
  params.frequency_penalty = own.frequency_penalty;
  params.no_repeat_ngram_size = own.no_repeat_ngram_size;
  params.seed = own.seed;
  params.logprobs = -1;
  params.prompt_logprobs = -1;
  return params;
}

template <typename T>
std::vector<T> copied(const T* items, std::size_t count, std::string_view name) {
  if (count == 0) return {};
  return {&not_null(items, name), items + count};
}

std::vector<std::int32_t> copied(const lamella_token_ids& list, std::string_view name) {
  return copied(list.ids, list.count, name);
}

/// -1 is none; other numbers are the core's to judge.
std::optional<std::int32_t> asked_for(std::int32_t count) { return count == -1 ? std::nullopt : std::optional(count); }

SamplingParams sampling_from(const lamella_sampling_params& params) {
  SamplingParams own{.max_tokens = params.max_tokens,
                     .min_tokens = params.min_tokens,
                     .temperature = params.temperature,
                     .top_k = params.top_k,
                     .top_p = params.top_p,
                     .min_p = params.min_p,
                     .repetition_penalty = params.repetition_penalty,
                     .presence_penalty = params.presence_penalty,
                     .frequency_penalty = params.frequency_penalty,
                     .no_repeat_ngram_size = params.no_repeat_ngram_size,
                     .allowed_token_ids = copied(params.allowed_token_ids, "allowed_token_ids"),
                     .seed = params.seed,
                     .n = params.n,
                     .logprobs = asked_for(params.logprobs),
                     .prompt_logprobs = asked_for(params.prompt_logprobs),
                     .stop_token_ids = copied(params.stop_token_ids, "stop_token_ids")};
  for (const lamella_token_ids& word : copied(params.bad_words, params.bad_words_count, "bad_words"))
    own.bad_words.push_back(copied(word, "bad_words"));
  for (const lamella_logit_bias& bias : copied(params.logit_bias, params.logit_bias_count, "logit_bias"))
    own.logit_bias.push_back({.token = bias.token, .bias = bias.bias});
  return own;
}

}  // namespace

Request request_from(const lamella_request& request) {
  Request own{.prompt = copied(request.prompt, "prompt"), .sampling = {}};
  if (request.sampling != nullptr)
    own.sampling = sampling_from(taken(*request.sampling, c_defaults(), "lamella_sampling_params"));
  return own;
}

}  // namespace lamella

extern "C" void lamella_sampling_params_init(lamella_sampling_params* params, size_t struct_size) {
  if (params != nullptr) lamella::given_back(lamella::c_defaults(), params, struct_size);
}
