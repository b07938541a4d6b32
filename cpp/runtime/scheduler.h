// Which tokens go into the next step: iteration-level scheduling with chunked prompts, counted admission, preemption
// and reuse of prefixes. Pure bookkeeping over sequences and block numbers: it knows neither clocks nor threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memory/kv_cache.h"
#include "runtime/micro_batches.h"
#include "runtime/sampler.h"
#include "runtime/sequence.h"
#include "runtime/step_input.h"

namespace lamella {

struct SchedulerLimits {
  std::int64_t max_num_seqs = 0;            // running at once
  std::int64_t max_num_batched_tokens = 0;  // of a step; at least max_num_seqs
  std::int64_t max_rows = 0;                // rows of logits of a step; at least max_num_seqs
  std::int64_t max_blocks_per_sequence = 0;
  KvRetention retention = {};
  bool reuse_prefixes = true;
};

/// One sequence's part in a step: tokens [begin, begin + count) of it.
struct Part {
  Sequence* sequence = nullptr;
  std::int64_t begin = 0, count = 0;
  std::int64_t first_scored = 0, scored = 0;  // positions whose rows the request wants: they come first
  bool samples = false;                       // then the row of the last known token, from which the next is drawn

  [[nodiscard]] std::int64_t rows() const noexcept { return scored + (samples ? 1 : 0); }
};

/// What came of a part: the token that was drawn where it samples, or why there is none.
struct Outcome {
  Sampled sampled = {.token = -1, .logprobs = {}};
  std::optional<Error> error;
};

/// Orders sequences and their blocks. Not thread-safe: the engine's loop owns it. Sequences stay their records'; one
/// that is neither waiting nor running is none of the scheduler's any more. Nothing here allocates or throws but the
/// constructor and a broken invariant.
///
/// Steps may be submitted before earlier ones are committed: a sequence whose next token is not known yet then has
/// nothing to add, a long prompt has its next chunk.
class Scheduler {
 public:
  Scheduler(SchedulerLimits limits, KvBlockPool& pool, KvCache::Scrub scrub);

  /// Queues it behind all that arrived before.
  void add(Sequence& sequence);
  /// Forgets all but the first `tokens` tokens of a sequence that no step uses, at least its prompt: what follows is
  /// drawn again. What stays in the cache is not computed again unless a window has left what it needs, for which the
  /// sequence gives its place up. For callers that take tokens back, as rejected drafts are; what they hold of these
  /// tokens themselves, a sampler's history and what a client was told, is theirs to take back.
  void truncate(Sequence& sequence, std::int64_t tokens);
  /// Ends it, or has it end when the steps in flight that use its blocks are done. No effect on one that has ended.
  void end(Sequence& sequence, Sequence::Ending ending);

  /// The next step. First a token for every sequence that generates, in order of arrival, then prompts, then sequences
  /// from the queue while places, tokens and blocks last. Where a block is missing, the youngest running sequence that
  /// no step uses is preempted. Empty: nothing to do until a step is committed or a sequence added.
  void next(std::vector<Part>& parts, const StepShare& share = {});
  /// Notes that the step is on its way.
  void launch(std::span<const Part> parts);
  /// Takes the results of the oldest step in flight. Sequences whose `state` is final afterwards have ended.
  void commit(std::span<const Part> parts, std::span<const Outcome> outcomes);

  [[nodiscard]] std::int64_t waiting() const noexcept { return waiting_; }
  [[nodiscard]] std::int64_t running() const noexcept { return static_cast<std::int64_t>(running_.size()); }
  /// Tokens of the prompts that run, or could if there were blocks, that no step has taken yet.
  [[nodiscard]] std::int64_t prompt_tokens_left() const noexcept;
  [[nodiscard]] std::int64_t preemptions() const noexcept { return preemptions_; }
  [[nodiscard]] std::int64_t reused_tokens() const noexcept { return reused_tokens_; }

 private:
  struct Room {
    std::int64_t tokens, rows;
  };
  void enqueue(Sequence& sequence);
  void dequeue(Sequence& sequence);
  void leave_running(Sequence& sequence);
  [[nodiscard]] bool admit(Sequence& sequence);
  [[nodiscard]] bool has_blocks_to(Sequence& sequence, std::int64_t end, std::span<const Part> parts);
  [[nodiscard]] Sequence* youngest_idle(std::span<const Part> parts) noexcept;
  void preempt(Sequence& sequence);
  void release(Sequence& sequence);
  void become(Sequence& sequence, RequestState state);
  void finalize(Sequence& sequence);
  void leave_windows(Sequence& sequence);
  void take_token(Sequence& sequence, std::int32_t token);
  void publish_full_blocks(Sequence& sequence);
  void add_part(Sequence& sequence, Room& room, std::vector<Part>& parts);

  SchedulerLimits limits_;
  KvCache cache_;
  Sequence *first_waiting_ = nullptr, *last_waiting_ = nullptr;  // in order of arrival
  std::int64_t waiting_ = 0;
  std::vector<Sequence*> running_;  // in order of arrival; room for all from the start
  std::int64_t preemptions_ = 0, reused_tokens_ = 0;
};

/// The step's flat input.
void fill_step_input(std::span<const Part> parts, StepInput& step);

}  // namespace lamella
