#include "runtime/token_history.h"

#include <algorithm>

namespace lamella {
namespace {

bool looks_at_order(const SamplingParams& params) {
  return params.no_repeat_ngram_size > 0 ||
         std::ranges::any_of(params.bad_words, [](const std::vector<std::int32_t>& word) { return word.size() > 1; });
}

}  // namespace

TokenHistory::TokenHistory(const SamplingParams& params, std::span<const std::int32_t> prompt, std::int64_t vocabulary)
    : keeps_order_(looks_at_order(params)),
      keeps_seen_(params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 ||
                  params.frequency_penalty != 0.0) {
  const std::size_t most = prompt.size() + static_cast<std::size_t>(params.max_tokens);
  if (keeps_order_) {
    tokens_.reserve(most);
    tokens_.assign(prompt.begin(), prompt.end());
  }
  if (!keeps_seen_) return;
  if (params.repetition_penalty != 1.0) {
    std::vector<std::int32_t> sorted(prompt.begin(), prompt.end());
    std::ranges::sort(sorted);
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    seen_.reserve(std::min(most, static_cast<std::size_t>(vocabulary)));
    for (const std::int32_t token : sorted) seen_.push_back({token, 0});
  } else {
    seen_.reserve(static_cast<std::size_t>(std::min(params.max_tokens, vocabulary)));
  }
}

void TokenHistory::accept(std::int32_t token) {
  if (keeps_order_) tokens_.push_back(token);
  if (keeps_seen_) {
    // Inserting moves at most 8 bytes a token of the sequence: a microsecond for thousands of them.
    const auto place = std::ranges::lower_bound(seen_, token, {}, &SeenToken::token);
    if (place == seen_.end() || place->token != token) {
      seen_.insert(place, {token, 1});
    } else {
      ++place->generated;
    }
  }
  ++generated_;
}

}  // namespace lamella
