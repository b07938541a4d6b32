// From logits to a token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lamella/sampling_params.h"
#include "runtime/sampler_scratch.h"
#include "runtime/token_history.h"

namespace lamella {

struct Sampled {
  std::int32_t token;
  std::vector<TokenLogprob> logprobs;  // if asked for: the chosen token first, then the best ones, it may be among them
};

/// Chooses the tokens of one generated sequence.
///
/// What acts, in this order: bias, penalties and masks (logits_processors.h); temperature, top_k, top_p, min_p; a draw
/// by inverse distribution in the order of ids. It is the order in which transformers runs its processors and warpers,
/// so that on equal logits the distribution is the same. vLLM differs in one place: its min_p comes before top_k and
/// top_p. Temperature 0 takes the best token after bias, penalties and masks.
///
/// The draw is a pure function of (seed, sample index, position), position being the number of tokens before. Weights
/// are fp64 and the same on every machine.
class Sampler {
 public:
  /// `params` must have passed `validate` for this vocabulary, and max_tokens be what the context can hold: memory for
  /// so many tokens is taken here, where parameters look back at them.
  Sampler(SamplingParams params, std::span<const std::int32_t> prompt, std::int64_t vocabulary,
          std::uint32_t sample_index);

  /// The next token from its `logits` [vocabulary]. Pure: the same tokens accepted and the same logits give the same.
  /// Errors: numeric where a logit is NaN or +infinity, and where no token is left, naming the parameters that masked
  /// them; the sampler stays as it is.
  [[nodiscard]] Sampled next(std::span<const float> logits, SamplerScratch& scratch) const;

  /// Whether `next` takes the best token of the logits as they are, and wants nothing else of them.
  [[nodiscard]] bool takes_best() const noexcept;
  /// As `next`, where it takes the best: from that logit and its token (OpKind::best_token).
  [[nodiscard]] static Sampled next(float best, std::int32_t token);

  /// The probability with which `next` draws each token, in fp64; 1 for the token of temperature 0. For checks. Errors:
  /// as `next`.
  [[nodiscard]] std::vector<double> distribution(std::span<const float> logits, SamplerScratch& scratch) const;

  /// The logits after bias, penalties and masks, as temperature finds them. For checks. Errors: as `next`.
  [[nodiscard]] std::vector<float> processed(std::span<const float> logits, SamplerScratch& scratch) const;

  /// Appends a token to the sequence. Allocates nothing for the first max_tokens tokens.
  void accept(std::int32_t token);

  [[nodiscard]] const SamplingParams& params() const noexcept { return params_; }

  /// The token of a sequence of which nothing but its length `position` is known, so that no parameter finds anything
  /// to look back at. For checks of many draws.
  [[nodiscard]] static std::int32_t token_at(std::int64_t position, std::span<const float> logits,
                                             const SamplingParams& params, std::uint32_t sample_index,
                                             SamplerScratch& scratch);

 private:
  [[nodiscard]] const LogitScan& scan_processed(std::span<const float> logits, SamplerScratch& scratch) const;

  SamplingParams params_;
  TokenHistory history_;
  std::size_t vocabulary_;
  std::uint32_t sample_index_;
  std::uint64_t position_;
};

/// Of `token` and of the `count` best tokens the log-probability that `logits` [vocabulary] give them, log-softmax in
/// fp64. The token comes first and may be among the others, which are in order. Errors: numeric where a logit is NaN or
/// +infinity, or none is finite.
[[nodiscard]] std::vector<TokenLogprob> token_logprobs(std::span<const float> logits, std::int32_t token,
                                                       std::int32_t count, SamplerScratch& scratch);

/// Refuses parameters outside their range, naming the field, what was found and what was expected: invalid_argument.
void validate(const SamplingParams& params, std::int64_t vocabulary);

}  // namespace lamella
