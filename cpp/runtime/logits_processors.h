// What a request's parameters make of the model's logits before any probability is formed: bias, penalties, masks.
#pragma once

#include <span>
#include <string>

#include "lamella/sampling_params.h"
#include "runtime/token_history.h"

namespace lamella {

/// Whether any of it would do anything at this point of the sequence.
[[nodiscard]] bool processes_logits(const SamplingParams& params, const TokenHistory& history) noexcept;

/// Writes to `processed` the logits after, in this order: allowed_token_ids, logit_bias, repetition_penalty,
/// frequency_penalty, presence_penalty, no_repeat_ngram_size, bad_words, min_tokens.
///
/// Of bias and penalties transformers and vLLM have the same order, and this is it; like theirs the arithmetic is fp32,
/// each operation rounded, so that on equal logits all bits are equal. The masks put a token to -infinity, which no
/// bias or penalty changes, so that it does not matter when they come.
///
/// Errors: numeric where bias or repetition_penalty takes a logit beyond fp32.
void process_logits(std::span<const float> logits, const SamplingParams& params, const TokenHistory& history,
                    std::span<float> processed);

/// The parameters that may have masked tokens at this point, as an error lists them: "min_tokens, bad_words".
[[nodiscard]] std::string masking_parameters(const SamplingParams& params, const TokenHistory& history);

}  // namespace lamella
