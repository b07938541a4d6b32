// What a request may ask about the choice of its tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace lamella {

/// How probable a token was, and its place among all of them.
struct TokenLogprob {
  std::int32_t token;
  float logprob;      // natural logarithm
  std::int32_t rank;  // 1 = most probable; equal ones are ranked by id
};

/// A number that is added to the logit of one token.
struct LogitBias {
  std::int32_t token;
  float bias;  // finite, or -infinity: never this token
};

/// How the next token is chosen, how much is told about the choice, and when generation ends. Names and meaning are
/// those of vLLM and OpenAI, which agree, or of transformers where only it has the feature. The order in which the
/// fields act is the Sampler's (runtime/sampler.h). Ids lie in [0, vocabulary); `validate` names the field that does
/// not fit.
struct SamplingParams {
  /// Generated tokens at most, from 1 up; or 0, where prompt_logprobs are all that is asked for.
  std::int64_t max_tokens = 256;
  /// 0 to max_tokens: no stop token can be drawn before so many tokens are generated. As in vLLM and transformers
  /// (min_new_tokens), whose end-of-sequence tokens are stop tokens here.
  std::int64_t min_tokens = 0;

  /// 0: greedy, the lowest id among equals; otherwise logits are divided by it, a number from 1e-6 up: below, the
  /// weight of every token but the best would underflow, so that it could only pretend to sample.
  double temperature = 0.0;
  /// 1 to the vocabulary: the k best tokens and, as in transformers, those equal to the k-th; 0: all.
  std::int32_t top_k = 0;
  /// (0, 1]: the fewest best tokens that together have this share of the probability that top_k left; equal tokens
  /// count in the order of their ids.
  double top_p = 1.0;
  /// [0, 1]: tokens at least this probable relative to the best one, as in transformers after top_p, from whose share
  /// it takes nothing.
  double min_p = 0.0;

  /// Above 0: logits of tokens in prompt or result are divided by it where positive, multiplied where negative; 1
  /// changes nothing. transformers' rule, and vLLM's.
  double repetition_penalty = 1.0;
  /// [-2, 2]: subtracted from the logits of generated tokens, once. OpenAI's rule, and vLLM's.
  double presence_penalty = 0.0;
  /// [-2, 2]: subtracted from the logits of generated tokens, as often as they were generated. As presence_penalty.
  double frequency_penalty = 0.0;
  /// n > 0: no run of n tokens occurs twice in prompt and result together, in so far as the result can help it; 0: no
  /// limit. transformers' rule.
  std::int64_t no_repeat_ngram_size = 0;
  /// Added to logits before anything else, each token at most once. OpenAI's rule, without its limit of 100.
  std::vector<LogitBias> logit_bias = {};
  /// Tokens that may be drawn; empty: all. vLLM's rule.
  std::vector<std::int32_t> allowed_token_ids = {};
  /// Sequences of ids, none empty, whose last token cannot be drawn where prompt and result end with the others.
  /// transformers' rule (bad_words_ids); a sequence of one token bans it, as suppress_tokens does there.
  std::vector<std::vector<std::int32_t>> bad_words = {};

  /// Randomness depends on (seed, sample index, position) and nothing else.
  std::uint64_t seed = 0;
  /// Samples of the same prompt, 1 to 128: sample i of them is a Sampler of that index.
  std::int32_t n = 1;
  /// 0 to 20: of each generated token its own log-probability and those of so many best tokens, from the logits as the
  /// model gave them (vLLM's default, OpenAI's meaning); nothing: none.
  std::optional<std::int32_t> logprobs = {};
  /// The same for the tokens of the prompt, from the second on.
  std::optional<std::int32_t> prompt_logprobs = {};
  /// Tokens that end the result and are not part of it: end of sequence among them, unless it is to be ignored.
  std::vector<std::int32_t> stop_token_ids = {};
};

}  // namespace lamella
