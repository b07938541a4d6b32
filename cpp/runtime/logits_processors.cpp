#include "runtime/logits_processors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "base/check.h"

namespace lamella {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

float& at(std::span<float> logits, std::int32_t token) { return logits[static_cast<std::size_t>(token)]; }

/// Refuses a logit that became NaN or infinite though `before` and `value` were not.
void check_range(float before, float after, std::string_view field, double value, std::int32_t token) {
  if (!(after < infinity) || (after == -infinity && before != -infinity && std::isfinite(value)))
    throw Error(ErrorCode::numeric,
                concat(field, " ", value, " takes the logit of token ", token, " beyond what fp32 holds"));
}

void add_bias(std::span<float> logits, const SamplingParams& params) {
  for (const LogitBias& entry : params.logit_bias) {
    float& logit = at(logits, entry.token);
    const float before = logit;
    logit += entry.bias;
    check_range(before, logit, "logit_bias", static_cast<double>(entry.bias), entry.token);
  }
}

void penalise(std::span<float> logits, const SamplingParams& params, std::span<const SeenToken> seen) {
  const auto repetition = static_cast<float>(params.repetition_penalty);
  const auto frequency = static_cast<float>(params.frequency_penalty);
  const auto presence = static_cast<float>(params.presence_penalty);
  for (const SeenToken& entry : seen) {
    float& logit = at(logits, entry.token);
    const float before = logit;
    logit = logit < 0.0F ? logit * repetition : logit / repetition;
    check_range(before, logit, "repetition_penalty", params.repetition_penalty, entry.token);
    if (entry.generated == 0) continue;
    logit -= frequency * static_cast<float>(entry.generated);
    logit -= presence;
  }
}

/// Bans what would end a second run of n tokens: the followers of earlier places with the last n - 1 tokens.
void ban_repeats(std::span<float> logits, std::int64_t n, std::span<const std::int32_t> tokens) {
  if (n > static_cast<std::int64_t>(tokens.size())) return;
  const std::span<const std::int32_t> end = tokens.last(static_cast<std::size_t>(n) - 1);
  for (std::size_t next = end.size(); next < tokens.size(); ++next)
    if (std::ranges::equal(end, tokens.subspan(next - end.size(), end.size()))) at(logits, tokens[next]) = -infinity;
}

void ban_words(std::span<float> logits, const SamplingParams& params, std::span<const std::int32_t> tokens) {
  for (const std::vector<std::int32_t>& word : params.bad_words) {
    const std::span<const std::int32_t> begin = std::span(word).first(word.size() - 1);
    if (begin.size() <= tokens.size() && std::ranges::equal(begin, tokens.last(begin.size())))
      at(logits, word.back()) = -infinity;
  }
}

bool too_early_to_stop(const SamplingParams& params, const TokenHistory& history) {
  return history.generated() < params.min_tokens && !params.stop_token_ids.empty();
}

}  // namespace

bool processes_logits(const SamplingParams& params, const TokenHistory& history) noexcept {
  return !params.allowed_token_ids.empty() || !params.logit_bias.empty() || !history.seen().empty() ||
         params.no_repeat_ngram_size > 0 || !params.bad_words.empty() || too_early_to_stop(params, history);
}

void process_logits(std::span<const float> logits, const SamplingParams& params, const TokenHistory& history,
                    std::span<float> processed) {
  if (params.allowed_token_ids.empty()) {
    std::ranges::copy(logits, processed.begin());
  } else {
    std::ranges::fill(processed, -infinity);
    for (const std::int32_t token : params.allowed_token_ids)
      at(processed, token) = logits[static_cast<std::size_t>(token)];
  }
  add_bias(processed, params);
  penalise(processed, params, history.seen());
  if (params.no_repeat_ngram_size > 0) ban_repeats(processed, params.no_repeat_ngram_size, history.tokens());
  ban_words(processed, params, history.tokens());
  if (too_early_to_stop(params, history))
    for (const std::int32_t token : params.stop_token_ids) at(processed, token) = -infinity;
}

std::string masking_parameters(const SamplingParams& params, const TokenHistory& history) {
  std::string names;
  const auto list = [&](bool masks, std::string_view name) {
    if (masks) names.append(names.empty() ? "" : ", ").append(name);
  };
  list(!params.allowed_token_ids.empty(), "allowed_token_ids");
  list(std::ranges::any_of(params.logit_bias, [](const LogitBias& entry) { return entry.bias == -infinity; }),
       "logit_bias");
  list(params.no_repeat_ngram_size > 0, "no_repeat_ngram_size");
  list(!params.bad_words.empty(), "bad_words");
  list(too_early_to_stop(params, history), "min_tokens");
  return names;
}

}  // namespace lamella
