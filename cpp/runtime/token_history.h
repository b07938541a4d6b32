// What a sequence holds so far, kept only as far as its parameters look back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lamella/sampling_params.h"

namespace lamella {

/// A token that a penalty may concern.
struct SeenToken {
  std::int32_t token;
  std::int32_t generated;  // how often; 0: it is in the prompt alone
};

class TokenHistory {
 public:
  /// Takes memory for the prompt and max_tokens tokens where a parameter looks back at them, and none otherwise.
  TokenHistory(const SamplingParams& params, std::span<const std::int32_t> prompt, std::int64_t vocabulary);

  /// Allocates nothing for the first max_tokens tokens.
  void accept(std::int32_t token);

  [[nodiscard]] std::int64_t generated() const noexcept { return generated_; }
  /// Prompt and result in order, where no_repeat_ngram_size or bad_words looks back; otherwise empty.
  [[nodiscard]] std::span<const std::int32_t> tokens() const noexcept { return tokens_; }
  /// Each token of the result once, and for a repetition penalty of the prompt, where there is a penalty; otherwise
  /// empty. In the order of ids, for memory's sake.
  [[nodiscard]] std::span<const SeenToken> seen() const noexcept { return seen_; }

 private:
  bool keeps_order_, keeps_seen_;
  std::int64_t generated_ = 0;
  std::vector<std::int32_t> tokens_;
  std::vector<SeenToken> seen_;
};

}  // namespace lamella
