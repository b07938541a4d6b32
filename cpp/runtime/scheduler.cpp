#include "runtime/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace lamella {
namespace {

/// In order of arrival; the choices of one request in their own order.
bool arrived_before(const Sequence& a, const Sequence& b) noexcept {
  return a.arrival != b.arrival ? a.arrival < b.arrival : a.choice < b.choice;
}

bool in_step(const Sequence& sequence, std::span<const Part> parts) noexcept {
  return std::ranges::any_of(parts, [&](const Part& part) { return part.sequence == &sequence; });
}

/// Whether a choice of a request would compute the prompt that the first choice is about to compute for all of them.
bool waits_for_first(const Sequence& sequence) noexcept {
  return sequence.first != nullptr && !is_final(sequence.first->state) && !sequence.first->has_begun();
}

}  // namespace

Sequence::Sequence(const Request& request, std::int32_t choice_number, std::size_t kv_groups)
    : choice(choice_number),
      prompt_tokens(static_cast<std::int64_t>(request.prompt.size())),
      max_tokens(request.sampling.max_tokens),
      stop_token_ids(request.sampling.stop_token_ids),
      held(KvCache::reserve(kv_groups, most_cached())) {
  const std::int64_t most = prompt_tokens + max_tokens;
  tokens.reserve(static_cast<std::size_t>(most));
  tokens = request.prompt;
}

Scheduler::Scheduler(SchedulerLimits limits, KvBlockPool& pool, KvCache::Scrub scrub)
    : limits_(std::move(limits)), cache_(pool, limits_.retention, std::move(scrub)) {
  check(limits_.retention.windows == std::vector<std::int32_t>{0} ||
            limits_.retention.tokens_in_flight >= limits_.max_num_batched_tokens,
        "windows for ", limits_.retention.tokens_in_flight, " tokens in flight and steps of ",
        limits_.max_num_batched_tokens);
  running_.reserve(static_cast<std::size_t>(limits_.max_num_seqs));
}

// ---- the queue -------------------------------------------------------------------------------------------------------

void Scheduler::add(Sequence& sequence) { enqueue(sequence); }

void Scheduler::enqueue(Sequence& sequence) {
  Sequence* before = last_waiting_;  // new ones come last; preempted ones, younger than most, near the front
  while (before != nullptr && arrived_before(sequence, *before)) before = before->earlier;
  sequence.earlier = before;
  sequence.later = before != nullptr ? before->later : first_waiting_;
  (before != nullptr ? before->later : first_waiting_) = &sequence;
  (sequence.later != nullptr ? sequence.later->earlier : last_waiting_) = &sequence;
  ++waiting_;
}

void Scheduler::dequeue(Sequence& sequence) {
  (sequence.earlier != nullptr ? sequence.earlier->later : first_waiting_) = sequence.later;
  (sequence.later != nullptr ? sequence.later->earlier : last_waiting_) = sequence.earlier;
  sequence.earlier = sequence.later = nullptr;
  --waiting_;
}

// ---- states ----------------------------------------------------------------------------------------------------------

void Scheduler::become(Sequence& sequence, RequestState state) {
  check(may_follow(sequence.state, state), "request ", sequence.arrival, " is ", to_string(sequence.state),
        " and cannot become ", to_string(state));
  sequence.state = state;
}

void Scheduler::end(Sequence& sequence, Sequence::Ending ending) {
  if (is_final(sequence.state) || sequence.ending) return;
  sequence.ending = std::move(ending);
  if (sequence.in_flight == 0) finalize(sequence);
}

void Scheduler::finalize(Sequence& sequence) {
  if (sequence.state == RequestState::running) {
    leave_running(sequence);
  } else {
    dequeue(sequence);
  }
  become(sequence, sequence.ending->state);
  sequence.reason = sequence.ending->reason;
  sequence.error = std::move(sequence.ending->error);
  sequence.ending.reset();
}

void Scheduler::leave_running(Sequence& sequence) {
  release(sequence);
  std::erase(running_, &sequence);
}

/// Gives all blocks back. Those behind the last row of logits that was looked at may hold anything.
void Scheduler::release(Sequence& sequence) {
  cache_.release(sequence.held, sequence.sound_places());
  sequence.scheduled = sequence.computed = sequence.verified = 0;
  sequence.scored_scheduled = sequence.scored;
}

void Scheduler::preempt(Sequence& sequence) {
  leave_running(sequence);
  become(sequence, RequestState::preempted);
  enqueue(sequence);
  ++preemptions_;
}

void Scheduler::truncate(Sequence& sequence, std::int64_t tokens) {
  check(sequence.in_flight == 0 && !sequence.ending && tokens >= sequence.prompt_tokens &&
            tokens <= static_cast<std::int64_t>(sequence.tokens.size()),
        "request ", sequence.arrival, " of ", sequence.tokens.size(), " tokens cannot be cut to ", tokens);
  sequence.tokens.resize(static_cast<std::size_t>(tokens));
  sequence.told = std::min(sequence.told, sequence.generated());
  if (sequence.state != RequestState::running) return;  // holds nothing
  const std::int64_t keep = std::min(sequence.computed, tokens - 1);  // the last one's row is what goes on
  if (keep == sequence.computed) return;
  const std::int64_t left = cache_.truncate(
      sequence.held, std::span(sequence.tokens).first(static_cast<std::size_t>(keep)), sequence.sound_places());
  if (left == 0) return preempt(sequence);
  sequence.scheduled = sequence.computed = left;
  sequence.verified = std::min(sequence.verified, left);
}

// ---- the next step ---------------------------------------------------------------------------------------------------

std::int64_t Scheduler::prompt_tokens_left() const noexcept {
  std::int64_t tokens = 0, places = limits_.max_num_seqs - running();
  const auto left = [](const Sequence& sequence) {
    return static_cast<std::int64_t>(sequence.tokens.size()) - sequence.scheduled;
  };
  for (const Sequence* sequence : running_)
    if (left(*sequence) > 1 || sequence->generated() == 0) tokens += left(*sequence);
  for (const Sequence* sequence = first_waiting_; sequence != nullptr && places > 0;
       sequence = sequence->later, --places)
    tokens += left(*sequence);
  return tokens;
}

void Scheduler::next(std::vector<Part>& parts, const StepShare& share) {
  parts.clear();
  Room room{std::min(limits_.max_num_batched_tokens, share.tokens), limits_.max_rows};
  const auto left = [](const Sequence& sequence) {
    return static_cast<std::int64_t>(sequence.tokens.size()) - sequence.scheduled;
  };
  std::int64_t generating = 0;
  // By index from the oldest: a preemption removes sequences behind this one, or this one itself.
  for (std::size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    const bool generates = sequence.generated() > 0;
    if (!sequence.ending && left(sequence) == 1 && (!generates || generating < share.generating)) {
      add_part(sequence, room, parts);
      generating += generates ? 1 : 0;
    }
    if (i < running_.size() && running_[i] == &sequence) ++i;
  }
  for (std::size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    if (!sequence.ending && left(sequence) > 1) add_part(sequence, room, parts);
    if (i < running_.size() && running_[i] == &sequence) ++i;
  }
  for (Sequence* sequence = first_waiting_; sequence != nullptr && room.tokens > 0 && room.rows > 0;) {
    Sequence* const later = sequence->later;
    if (!waits_for_first(*sequence)) {
      if (running() == limits_.max_num_seqs || !admit(*sequence)) break;  // nobody overtakes
      add_part(*sequence, room, parts);
    }
    sequence = later;
  }
}

/// Makes sure of the blocks of a running sequence's next tokens, by preemption if need be.
bool Scheduler::has_blocks_to(Sequence& sequence, std::int64_t end, std::span<const Part> parts) {
  while (!cache_.hold(sequence.held, sequence.scheduled, end)) {
    Sequence* const victim = youngest_idle(parts);
    // All blocks are in flight, or older sequences', or held by a call outside the scheduler: later.
    if (victim == nullptr || arrived_before(*victim, sequence)) return false;
    preempt(*victim);
    if (victim == &sequence) return false;
  }
  return true;
}

/// Of the running sequences the youngest that no step uses; never the oldest of all, which so gets on in any case.
Sequence* Scheduler::youngest_idle(std::span<const Part> parts) noexcept {
  for (std::size_t i = running_.size(); i-- > 1;)
    if (running_[i]->in_flight == 0 && !in_step(*running_[i], parts)) return running_[i];
  return nullptr;
}

/// Gives a waiting sequence its place and the blocks of all tokens that it has; false where they are not to be had.
bool Scheduler::admit(Sequence& sequence) {
  const auto tokens = static_cast<std::int64_t>(sequence.tokens.size());
  std::int64_t reused = 0;
  if (limits_.reuse_prefixes) {
    // Up to the first token whose row is wanted, which must be computed.
    const std::int64_t first_row = sequence.scored < sequence.scored_end ? sequence.scored : tokens - 1;
    reused = kv_block_tokens * cache_.reuse(sequence.tokens, first_row / kv_block_tokens, sequence.held);
  }
  // Those that run and have not all that they can ever need may want a block soon: to take the last ones would only mean
  // to be preempted.
  std::int64_t wanted_soon = 0;
  for (const Sequence* other : running_) wanted_soon += cache_.may_want(other->held, other->most_cached());
  if (cache_.missing(sequence.held, reused, tokens) + wanted_soon > cache_.pool().available() ||
      !cache_.hold(sequence.held, reused, tokens)) {
    cache_.release(sequence.held, all_sound);
    return false;
  }
  dequeue(sequence);
  become(sequence, RequestState::running);
  running_.insert(
      std::ranges::find_if(running_, [&](const Sequence* other) { return arrived_before(sequence, *other); }),
      &sequence);
  sequence.scheduled = sequence.computed = sequence.verified = reused;
  reused_tokens_ += sequence.computed;
  return true;
}

void Scheduler::add_part(Sequence& sequence, Room& room, std::vector<Part>& parts) {
  const auto known = static_cast<std::int64_t>(sequence.tokens.size());
  Part part{.sequence = &sequence, .begin = sequence.scheduled};
  part.count = std::min(known - part.begin, room.tokens);
  part.first_scored = std::max(part.begin, sequence.scored_scheduled);
  // The part ends early where the step has no more rows.
  if (part.first_scored < sequence.scored_end)
    part.count = std::min(part.count, part.first_scored + room.rows - part.begin);
  part.scored = std::max<std::int64_t>(0, std::min(part.begin + part.count, sequence.scored_end) - part.first_scored);
  part.samples = part.begin + part.count == known && sequence.max_tokens > 0;
  if (part.rows() > room.rows) {  // a row for its last token is what the step has not got
    part.samples = false;
    part.count -= 1;
    part.scored = std::min(part.scored, std::max<std::int64_t>(0, part.begin + part.count - part.first_scored));
  }
  if (part.count <= 0 || !has_blocks_to(sequence, part.begin + part.count, parts)) return;
  room.tokens -= part.count;
  room.rows -= part.rows();
  parts.push_back(part);
}

void Scheduler::launch(std::span<const Part> parts) {
  for (const Part& part : parts) {
    part.sequence->scheduled += part.count;
    part.sequence->scored_scheduled += part.scored;
    ++part.sequence->in_flight;
  }
}

// ---- what came of a step ---------------------------------------------------------------------------------------------

void Scheduler::commit(std::span<const Part> parts, std::span<const Outcome> outcomes) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Sequence& sequence = *parts[i].sequence;
    --sequence.in_flight;
    sequence.computed += parts[i].count;
    if (outcomes[i].error) {
      end(sequence, {RequestState::failed, FinishReason::error, outcomes[i].error});
    } else if (!sequence.ending) {
      sequence.scored += parts[i].scored;
      if (parts[i].samples) {
        // Its row was found to be numbers, and it comes of all before that windows reach. What they do not reach, nothing
        // reads but a sequence of the same tokens, which would compute the same.
        sequence.verified = sequence.computed;
        publish_full_blocks(sequence);
      }
      leave_windows(sequence);
      if (parts[i].samples) take_token(sequence, outcomes[i].sampled.token);
      if (sequence.max_tokens == 0 && sequence.computed == sequence.prompt_tokens)
        end(sequence, {RequestState::finished, FinishReason::length, {}});
    }
    if (sequence.ending && sequence.in_flight == 0) finalize(sequence);
  }
}

/// Gives back what no window reaches any more. The rest of a prompt takes as much again, before anybody else can; what
/// it shared with others is not there to be taken, and then it may have to wait for blocks in its middle.
void Scheduler::leave_windows(Sequence& sequence) {
  cache_.leave(sequence.held, sequence.computed, sequence.sound_places());
  const auto known = static_cast<std::int64_t>(sequence.tokens.size());
  if (known - sequence.computed > 1) static_cast<void>(cache_.hold(sequence.held, sequence.computed, known));
}

void Scheduler::take_token(Sequence& sequence, std::int32_t token) {
  if (std::ranges::find(sequence.stop_token_ids, token) != sequence.stop_token_ids.end())
    return end(sequence, {RequestState::finished, FinishReason::stop, {}});
  sequence.tokens.push_back(token);
  if (sequence.generated() >= sequence.max_tokens) end(sequence, {RequestState::finished, FinishReason::length, {}});
}

void Scheduler::publish_full_blocks(Sequence& sequence) {
  if (!limits_.reuse_prefixes) return;
  while ((sequence.held.published + 1) * kv_block_tokens <= sequence.verified)
    cache_.publish(sequence.held,
                   std::span(sequence.tokens)
                       .subspan(static_cast<std::size_t>(sequence.held.published * kv_block_tokens), kv_block_tokens));
}

// ---- the step's input ------------------------------------------------------------------------------------------------

void fill_step_input(std::span<const Part> parts, StepInput& step) {
  std::int64_t tokens = 0, rows = 0, blocks = 0;
  for (const Part& part : parts) {
    tokens += part.count;
    rows += part.rows();
    blocks = std::max(blocks, KvBlockPool::blocks_for(part.begin + part.count));
  }
  const std::size_t groups = parts.empty() ? 1 : parts.front().sequence->held.groups.size();
  step.reset(tokens, static_cast<std::int64_t>(parts.size()), rows, blocks, groups);
  std::size_t token = 0, row = 0;
  for (std::size_t s = 0; s < parts.size(); ++s) {
    const Part& part = parts[s];
    const Sequence& sequence = *part.sequence;
    step.sequences()[2 * s] = static_cast<std::int32_t>(token);
    step.sequences()[2 * s + 1] = static_cast<std::int32_t>(part.count);
    for (std::size_t group = 0; group < groups; ++group) step.set_blocks(group, s, sequence.held.groups[group]);
    const auto index_of = [&](std::int64_t position) {
      return static_cast<std::int32_t>(static_cast<std::int64_t>(token) + position - part.begin);
    };
    for (std::int64_t i = 0; i < part.scored; ++i) step.row_indices()[row++] = index_of(part.first_scored + i);
    if (part.samples) step.row_indices()[row++] = index_of(part.begin + part.count - 1);
    for (std::int64_t position = part.begin; position < part.begin + part.count; ++position, ++token) {
      step.token_ids()[token] = sequence.tokens[static_cast<std::size_t>(position)];
      step.positions()[token] = static_cast<std::int32_t>(position);
      step.rope_lengths()[token] = static_cast<std::int32_t>(std::max(sequence.prompt_tokens, position + 1));
    }
  }
}

}  // namespace lamella
