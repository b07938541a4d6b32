#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/counter_random.h"
#include "runtime/logit_scan.h"
#include "runtime/logits_processors.h"
#include "runtime/token_weights.h"

namespace lamella {
namespace {

void require_numbers(bool sound, float best) {
  if (!sound)
    throw Error(ErrorCode::numeric,
                "the model's logits hold NaN or infinity; its weights or the dtype's range are at fault");
  if (best == -INFINITY) throw Error(ErrorCode::numeric, "no token has a finite logit");
}

void scan_raw(std::span<const float> logits, LogitScan& found) {
  const bool sound = scan(logits, found);
  require_numbers(sound, found.best);
}

/// What the parameters keep of the tokens at a temperature above 0.
TokenWeights kept_tokens(const LogitScan& found, const SamplingParams& params, SamplerScratch& scratch) {
  TokenWeights weights(found, params.temperature, scratch);
  if (params.top_k > 0) weights.keep_top_k(static_cast<std::size_t>(params.top_k));
  if (params.top_p < 1.0) weights.keep_top_p(params.top_p);
  if (params.min_p > 0.0) weights.keep_min_p(params.min_p);
  return weights;
}

std::vector<TokenLogprob> logprobs_of(const LogitScan& raw, std::int32_t token, std::int32_t count,
                                      SamplerScratch& scratch) {
  const double best = raw.best;
  const double log_total = std::log(TokenWeights(raw, 1.0, scratch).total());
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - best - log_total); };
  std::vector<TokenLogprob> result;
  result.reserve(static_cast<std::size_t>(count) + 1);
  result.push_back({token, logprob(raw.logits[static_cast<std::size_t>(token)]), rank_of(raw, token)});
  best_tokens(raw, static_cast<std::size_t>(count), scratch);
  std::int32_t rank = 0;
  for (const ScoredToken& scored : scratch.tokens) result.push_back({scored.token, logprob(scored.logit), ++rank});
  return result;
}

}  // namespace

Sampler::Sampler(SamplingParams params, std::span<const std::int32_t> prompt, std::int64_t vocabulary,
                 std::uint32_t sample_index)
    : params_(std::move(params)),
      history_(params_, prompt, vocabulary),
      vocabulary_(static_cast<std::size_t>(vocabulary)),
      sample_index_(sample_index),
      position_(prompt.size()) {}

const LogitScan& Sampler::scan_processed(std::span<const float> logits, SamplerScratch& scratch) const {
  check(logits.size() == vocabulary_, logits.size(), " logits for a vocabulary of ", vocabulary_);
  scan_raw(logits, scratch.raw);
  if (!processes_logits(params_, history_)) return scratch.raw;
  scratch.row.resize(vocabulary_);
  process_logits(logits, params_, history_, scratch.row);
  check(scan(scratch.row, scratch.processed), "bias or penalties left NaN or infinity");
  if (scratch.processed.best == -INFINITY)
    throw Error(ErrorCode::numeric,
                concat("no token is left to choose: ", masking_parameters(params_, history_), " masked them all"));
  return scratch.processed;
}

Sampled Sampler::next(std::span<const float> logits, SamplerScratch& scratch) const {
  const LogitScan& found = scan_processed(logits, scratch);
  Sampled sampled{};
  if (params_.temperature == 0.0) {
    sampled.token = best_token(found);
  } else {
    sampled.token = kept_tokens(found, params_, scratch).draw(uniform(params_.seed, sample_index_, position_));
  }
  if (params_.logprobs) sampled.logprobs = logprobs_of(scratch.raw, sampled.token, *params_.logprobs, scratch);
  return sampled;
}

bool Sampler::takes_best() const noexcept {
  return params_.temperature == 0.0 && !params_.logprobs && !processes_logits(params_, history_);
}

Sampled Sampler::next(float best, std::int32_t token) {
  require_numbers(token >= 0, best);
  return {.token = token, .logprobs = {}};
}

std::vector<double> Sampler::distribution(std::span<const float> logits, SamplerScratch& scratch) const {
  const LogitScan& found = scan_processed(logits, scratch);
  if (params_.temperature > 0.0) return kept_tokens(found, params_, scratch).probabilities();
  std::vector<double> certain(vocabulary_, 0.0);
  certain[static_cast<std::size_t>(best_token(found))] = 1.0;
  return certain;
}

std::vector<float> Sampler::processed(std::span<const float> logits, SamplerScratch& scratch) const {
  const std::span<const float> found = scan_processed(logits, scratch).logits;
  return {found.begin(), found.end()};
}

void Sampler::accept(std::int32_t token) {
  history_.accept(token);
  ++position_;
}

std::int32_t Sampler::token_at(std::int64_t position, std::span<const float> logits, const SamplingParams& params,
                               std::uint32_t sample_index, SamplerScratch& scratch) {
  Sampler sampler(params, {}, static_cast<std::int64_t>(logits.size()), sample_index);
  sampler.position_ = static_cast<std::uint64_t>(position);
  return sampler.next(logits, scratch).token;
}

std::vector<TokenLogprob> token_logprobs(std::span<const float> logits, std::int32_t token, std::int32_t count,
                                         SamplerScratch& scratch) {
  scan_raw(logits, scratch.raw);
  return logprobs_of(scratch.raw, token, count, scratch);
}

}  // namespace lamella
