// Which tokens go into the next step: iteration-level scheduling with chunked prompts and counted admission.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "lamella/request.h"
#include "memory/kv_pool.h"
#include "runtime/sampler.h"
#include "runtime/step_input.h"

namespace lamella {

/// A request in flight. waiting -> running -> finished; nothing else.
struct Sequence {
  RequestId id = 0;
  std::vector<std::int32_t> tokens;  // prompt, then what was generated
  std::int64_t prompt_tokens = 0;
  SamplingParams sampling;
  std::optional<Sampler> sampler;    // from the first token on
  std::vector<std::int32_t> blocks;  // KV blocks, all that the request can ever need, taken at admission
  std::int64_t cached = 0;           // tokens whose K and V are in the cache
  FinishReason reason = FinishReason::running;
  std::optional<Error> error;
  bool cancel_requested = false;     // while a step was using its blocks
  double submitted_s = 0.0, first_token_s = 0.0;
  std::int64_t delivered = 0;        // generated tokens that the caller has seen
};

struct SchedulerLimits {
  std::int64_t max_num_seqs = 0;
  std::int64_t max_num_batched_tokens = 0;
  std::int64_t max_model_len = 0;
};

/// One sequence's part in a step.
struct Scheduled {
  Sequence* sequence;
  std::int64_t tokens;  // of sequence->tokens, from sequence->cached on
  bool samples;         // the part reaches the last known token, so the step yields a new one
};

/// Owns all sequences and their blocks. Not thread-safe; the engine serialises calls.
class Scheduler {
 public:
  Scheduler(SchedulerLimits limits, KvBlockPool& pool);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// Queues the request. Errors: std::bad_alloc, which leaves no trace of it.
  RequestId add(Request request, double now_s);
  /// The sequence, or nullptr once `forget` was called.
  [[nodiscard]] Sequence* find(RequestId id) noexcept;
  /// Admits waiting sequences while blocks and places last, in order of arrival, and picks the tokens of the next step:
  /// one for every sequence that generates, then prompts in order of arrival, cut at the token budget. Empty when there
  /// is nothing to do. Errors: std::bad_alloc; the same step can then be asked for again.
  [[nodiscard]] std::vector<Scheduled> next();
  [[nodiscard]] StepInput step_input(const std::vector<Scheduled>& parts) const;
  /// Running sequences whose cancellation waits for a moment between steps.
  [[nodiscard]] std::vector<Sequence*> cancel_requested() const;
  /// Ends a sequence and gives its blocks back; its tokens stay for the caller to read until `forget`.
  void finish(Sequence& sequence, FinishReason reason, std::optional<Error> error = {}) noexcept;
  void forget(RequestId id) { sequences_.erase(id); }

  [[nodiscard]] std::int64_t waiting() const noexcept { return static_cast<std::int64_t>(waiting_.size()); }
  [[nodiscard]] std::int64_t running() const noexcept { return static_cast<std::int64_t>(running_.size()); }
  /// Tokens that the request can reach at most: prompt and max_tokens.
  [[nodiscard]] static std::int64_t reserved_tokens(const Sequence& sequence) noexcept {
    return sequence.prompt_tokens + sequence.sampling.max_tokens;
  }

 private:
  void admit();

  SchedulerLimits limits_;
  KvBlockPool& pool_;
  std::map<RequestId, Sequence> sequences_;
  std::deque<Sequence*> waiting_;
  std::vector<Sequence*> running_;  // in order of arrival
  RequestId next_id_ = 1;
};

}  // namespace lamella
