// The buffers that choosing tokens works in.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/logit_kernels.h"

namespace lamella {

/// What one pass over the logits of a position finds; filled by `scan`.
struct LogitScan {
  const LogitKernels* kernels = &plain_logit_kernels;  // run this pass and those that follow; all give the same
  std::span<const float> logits;                       // [vocabulary]
  std::array<float, logit_block> tail{};  // the last block where it is shorter, -infinity behind its end
  std::vector<float> block_max;  // of each `logit_block` logits
  float best = 0.0F;  // -infinity where no token has a finite logit
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
  explicit SamplerScratch(const LogitKernels& kernels = plain_logit_kernels) {
    raw.kernels = processed.kernels = &kernels;
  }

  LogitScan raw, processed;
  std::vector<float> row;  // logits after bias, penalties and masks
  std::vector<float> selection;  // what nth_element reorders
  std::vector<double> block_weights;  // of each block the kept tokens' weight
  std::vector<double> buckets;  // of top_p: mass by distance from the best logit
  std::vector<ScoredToken> tokens;
};

}  // namespace lamella
