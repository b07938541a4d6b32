#include "runtime/scheduler.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace lamella {

Scheduler::Scheduler(SchedulerLimits limits, KvBlockPool& pool) : limits_(limits), pool_(pool) {
  running_.reserve(static_cast<std::size_t>(limits.max_num_seqs));
}

Scheduler::~Scheduler() {
  for (auto& [id, sequence] : sequences_) pool_.give_back(sequence.blocks);
}

RequestId Scheduler::add(Request request, double now_s) {
  const RequestId id = next_id_;
  const auto place = sequences_.try_emplace(id).first;
  Sequence& sequence = place->second;
  try {
    waiting_.push_back(&sequence);
  } catch (...) {
    sequences_.erase(place);
    throw;
  }
  ++next_id_;
  sequence.id = id;
  sequence.prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  sequence.tokens = std::move(request.prompt);
  sequence.sampling = std::move(request.sampling);
  sequence.submitted_s = now_s;
  return id;
}

Sequence* Scheduler::find(RequestId id) noexcept {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : &found->second;
}

void Scheduler::admit() {
  while (!waiting_.empty() && running() < limits_.max_num_seqs) {
    Sequence& first = *waiting_.front();
    const std::int64_t blocks = KvBlockPool::blocks_for(reserved_tokens(first));
    check(blocks <= pool_.total(), "request ", first.id, " needs ", blocks, " KV blocks of ", pool_.total(),
          ": split_memory gives the cache a whole context, and no request exceeds that");
    if (!pool_.take(blocks, first.blocks)) return;
    running_.push_back(&first);  // its room was reserved: blocks taken by a sequence that still waits would be lost
    waiting_.pop_front();
  }
}

std::vector<Scheduled> Scheduler::next() {
  admit();
  std::vector<Scheduled> parts;
  std::int64_t budget = limits_.max_num_batched_tokens;
  const auto take = [&](bool generating) {
    for (Sequence* sequence : running_) {
      const std::int64_t left = static_cast<std::int64_t>(sequence->tokens.size()) - sequence->cached;
      check(left >= 1, "request ", sequence->id, " runs with all of its ", sequence->cached, " tokens in the cache");
      if ((left == 1) != generating || budget == 0) continue;
      const std::int64_t tokens = std::min(left, budget);
      parts.push_back({sequence, tokens, tokens == left});
      budget -= tokens;
    }
  };
  take(true);
  take(false);
  return parts;
}

StepInput Scheduler::step_input(const std::vector<Scheduled>& parts) const {
  std::int64_t tokens = 0, rows = 0, blocks = 0;
  for (const Scheduled& part : parts) {
    tokens += part.tokens;
    rows += part.samples ? 1 : 0;
    blocks = std::max(blocks, KvBlockPool::blocks_for(part.sequence->cached + part.tokens));
  }
  StepInput step(tokens, static_cast<std::int64_t>(parts.size()), rows, blocks);
  std::size_t token = 0, row = 0;
  for (std::size_t s = 0; s < parts.size(); ++s) {
    const Sequence& sequence = *parts[s].sequence;
    step.sequences()[2 * s] = static_cast<std::int32_t>(token);
    step.sequences()[2 * s + 1] = static_cast<std::int32_t>(parts[s].tokens);
    const std::size_t used = std::min(static_cast<std::size_t>(blocks), sequence.blocks.size());
    std::copy_n(sequence.blocks.begin(), used, step.block_tables().begin() + static_cast<std::ptrdiff_t>(s) * blocks);
    for (std::int64_t i = 0; i < parts[s].tokens; ++i, ++token) {
      const std::int64_t position = sequence.cached + i;
      step.token_ids()[token] = sequence.tokens[static_cast<std::size_t>(position)];
      step.positions()[token] = static_cast<std::int32_t>(position);
      step.rope_lengths()[token] = static_cast<std::int32_t>(std::max(sequence.prompt_tokens, position + 1));
    }
    if (parts[s].samples) step.row_indices()[row++] = static_cast<std::int32_t>(token - 1);
  }
  return step;
}

std::vector<Sequence*> Scheduler::cancel_requested() const {
  std::vector<Sequence*> found;
  std::ranges::copy_if(running_, std::back_inserter(found), &Sequence::cancel_requested);
  return found;
}

void Scheduler::finish(Sequence& sequence, FinishReason reason, std::optional<Error> error) noexcept {
  sequence.reason = reason;
  sequence.error = std::move(error);
  pool_.give_back(sequence.blocks);
  std::erase(waiting_, &sequence);
  std::erase(running_, &sequence);
}

}  // namespace lamella
