// From logits to a token.
#pragma once

#include <cstdint>
#include <span>

#include "lamella/request.h"

namespace lamella {

/// Chooses one token from `logits` [vocabulary]: greedy at temperature 0, otherwise temperature, then top-k, then
/// top-p, then a draw by inverse distribution in token order. The draw is a pure function of (seed, sample, position).
/// Probabilities are formed in fp64. Errors: numeric where a logit is NaN or +infinity, or all are -infinity.
[[nodiscard]] std::int32_t sample(std::span<const float> logits, const SamplingParams& params,
                                  std::uint32_t sample_index, std::int64_t position);

/// Refuses parameters outside their range, naming the field: invalid_argument.
void validate(const SamplingParams& params, std::int64_t vocabulary);

}  // namespace lamella
