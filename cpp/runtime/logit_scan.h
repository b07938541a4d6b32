// One pass over the logits of a position, and what it makes cheap: the best token, the k-th best logit, the k best
// tokens, a token's rank. None of it sorts the vocabulary.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/sampler_scratch.h"

namespace lamella {

/// Fills `scan` from `logits` [vocabulary], which must outlive it. False where a logit is NaN or +infinity.
[[nodiscard]] bool scan(std::span<const float> logits, LogitScan& scan);

/// The lowest id among the tokens with the best logit.
[[nodiscard]] std::int32_t best_token(const LogitScan& scan);

/// The k-th largest logit, 1 <= k <= vocabulary; equal ones count one by one.
[[nodiscard]] float kth_logit(const LogitScan& scan, std::size_t k, std::vector<float>& selection);

/// The `count` best tokens in order, ties by id, in `scratch.tokens`; fewer where the vocabulary has fewer.
void best_tokens(const LogitScan& scan, std::size_t count, SamplerScratch& scratch);

/// 1 for the best token; equal ones are ranked by id.
[[nodiscard]] std::int32_t rank_of(const LogitScan& scan, std::int32_t token);

/// Calls visit(token, logit) in the order of ids for every token whose logit is at least `least`. Looks only into
/// blocks that hold one.
template <typename Visit>
void visit_at_least(const LogitScan& scan, float least, const Visit& visit) {
  for (std::size_t block = 0; block < scan.block_max.size(); ++block) {
    if (scan.block_max[block] < least) continue;
    const std::size_t end = std::min((block + 1) * logit_block, scan.logits.size());
    for (std::size_t i = block * logit_block; i < end; ++i)
      if (scan.logits[i] >= least) visit(static_cast<std::int32_t>(i), scan.logits[i]);
  }
}

}  // namespace lamella
