// The buffers that choosing tokens works in.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lamella {

/// Logits are looked through in blocks of so many tokens.
inline constexpr std::size_t logit_block = 64;

/// What one pass over the logits of a position finds; filled by `scan`.
struct LogitScan {
  std::span<const float> logits;  // [vocabulary]
  std::vector<float> block_max;   // of each `logit_block` logits, the last block being shorter
  float best = 0.0F;              // -infinity where no token has a finite logit
};

struct ScoredToken {
  float logit;
  std::int32_t token;
};

/// The better token first; among equals the lower id.
inline bool better(const ScoredToken& a, const ScoredToken& b) noexcept {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

/// Buffers that grow with the first calls and are reused from then on, one for each thread that samples. What they hold
/// between calls decides nothing.
struct SamplerScratch {
  LogitScan raw, processed;
  std::vector<float> row;            // logits after bias, penalties and masks
  std::vector<float> selection;      // what nth_element reorders
  std::vector<double> weights;       // of each token, the last block padded
  std::vector<double> block_weights; // their sums
  std::vector<double> buckets;       // of top_p: mass by distance from the best logit
  std::vector<ScoredToken> tokens;
};

}  // namespace lamella
