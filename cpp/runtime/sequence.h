// One sequence of tokens that the engine works on: a request, or one of the n continuations that a request asks for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "lamella/request.h"
#include "memory/kv_cache.h"
#include "runtime/request_state.h"

namespace lamella {

struct RequestRecord;

/// Tokens of a request that are in the KV cache at most: the last one that it generates is never computed.
[[nodiscard]] inline std::int64_t cached_tokens(std::int64_t prompt, std::int64_t max_tokens) noexcept {
  return prompt + std::max<std::int64_t>(max_tokens - 1, 0);
}

/// Owned by the request's record, changed by the loop alone. All that it can ever hold is reserved when it is made, on
/// the thread that submits: scheduling allocates nothing.
struct Sequence {
  /// Errors: std::bad_alloc.
  Sequence(const Request& request, std::int32_t choice, std::size_t kv_groups = 1);

  RequestId arrival = 0;             // order among all requests
  RequestRecord* record = nullptr;   // that it belongs to
  std::int32_t choice;  // among its request's n; the others wait for the first one's prompt and share it
  const Sequence* first = nullptr;  // the request's choice 0, for the others
  std::vector<std::int32_t> tokens;  // prompt, then what was generated
  std::int64_t prompt_tokens;
  std::int64_t max_tokens;
  std::vector<std::int32_t> stop_token_ids;
  /// Prompt positions, from the first on, whose row of logits the request wants for itself.
  std::int64_t scored_end = 0;

  RequestState state = RequestState::waiting;
  FinishReason reason = FinishReason::running;
  std::optional<Error> error;
  std::int64_t told = 0;  // generated tokens that the caller's end has

  // ---- the KV cache ----
  KvHolding held;
  std::int64_t scheduled = 0;  // tokens in the cache once every step that was submitted is done
  std::int64_t computed = 0;  // tokens in the cache now
  std::int64_t verified = 0;  // of them, those up to a row of logits that was found to be numbers
  std::int64_t scored = 0, scored_scheduled = 0;  // rows that the request has, or will have after those steps
  std::int32_t in_flight = 0;  // submitted steps that are not done

  /// How it ends as soon as no step is in flight that uses its blocks.
  struct Ending {
    RequestState state;
    FinishReason reason;
    std::optional<Error> error;
  };
  std::optional<Ending> ending;

  // Its neighbours in the scheduler's queue while it waits.
  Sequence *earlier = nullptr, *later = nullptr;

  [[nodiscard]] std::int64_t generated() const noexcept {
    return static_cast<std::int64_t>(tokens.size()) - prompt_tokens;
  }
  /// Tokens that it has in the KV cache at most.
  [[nodiscard]] std::int64_t most_cached() const noexcept { return cached_tokens(prompt_tokens, max_tokens); }
  /// The first place of the cache with content that nobody has found to be numbers.
  [[nodiscard]] std::int64_t sound_places() const noexcept {
    return scheduled > verified ? verified / kv_block_tokens : all_sound;
  }
  /// Whether the prompt has been computed once and found sound.
  [[nodiscard]] bool has_begun() const noexcept { return verified >= prompt_tokens || generated() > 0; }
};

}  // namespace lamella
