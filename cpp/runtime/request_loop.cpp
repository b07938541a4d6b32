#include "runtime/request_loop.h"

#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/check.h"

namespace lamella {
namespace {

/// Tells whoever polls the descriptor. A full counter is told already.
void raise_event(int event_fd) noexcept {
  const std::uint64_t one = 1;
  if (event_fd >= 0) static_cast<void>(!::write(event_fd, &one, sizeof one));
}

}  // namespace

RequestLoop::RequestLoop(LoopOptions options, std::vector<StageExecutors> stages, ThreadTeam& team, KvBlockPool& pool,
                         KvCache::Scrub scrub)
    : options_(std::move(options)), pool_(pool), scheduler_(options_.limits, pool, std::move(scrub)) {
  if (stages.empty()) return;
  if (stages.size() > 1)
    micro_batching_.emplace(static_cast<int>(stages.size()), options_.steps_in_flight, options_.pipeline);
  runner_.emplace(std::move(stages), team, *options_.logit_kernels, options_.vocabulary, options_.steps_in_flight);
  steps_.resize(static_cast<std::size_t>(options_.steps_in_flight));
  const auto sequences = static_cast<std::size_t>(options_.limits.max_num_seqs);
  for (InFlight& flight : steps_) {
    flight.step.parts.reserve(sequences);
    flight.step.outcomes.reserve(sequences);
    flight.step.input.reset(options_.limits.max_num_batched_tokens, options_.limits.max_num_seqs,
                            options_.limits.max_rows, options_.limits.max_blocks_per_sequence,
                            options_.limits.retention.windows.size());
  }
}

RequestLoop::~RequestLoop() { end_loop(); }

void RequestLoop::start() {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::out_of_memory,
                concat("the operating system gave no thread for the engine's loop: ", error.what()));
  }
}

void RequestLoop::close() {
  if (thread_.get_id() == std::this_thread::get_id())
    throw Error(ErrorCode::invalid_argument, "close() was called on the engine's own thread, which it waits for");
  end_loop();
}

void RequestLoop::end_loop() {
  const std::lock_guard one_at_a_time(closing_guard_);
  if (closed_) return;  // clients may keep the queue longer than what the loop worked with
  {
    const std::lock_guard lock(queue_);
    closing_ = true;
  }
  commands_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    run();
  }
  runner_.reset();
  closed_ = true;
}

// ---- figures of the runner -------------------------------------------------------------------------------------------

void RequestLoop::record_runs(bool record) {
  const std::lock_guard lock(closing_guard_);
  if (runner_) runner_->record_runs(record);
}

std::vector<StageRun> RequestLoop::runs() const {
  const std::lock_guard lock(closing_guard_);
  return runner_ ? runner_->runs() : std::vector<StageRun>();
}

StepTimes RequestLoop::step_times() const {
  const std::lock_guard lock(closing_guard_);
  return runner_ ? runner_->times() : StepTimes();
}

MicroBatches RequestLoop::micro_batches(const MicroBatching::Work& work) const {
  return micro_batching_ ? micro_batching_->counts(work, step_times(), turnaround_s_) : MicroBatches();
}

// ---- the loop --------------------------------------------------------------------------------------------------------

void RequestLoop::run() noexcept {
  try {
    for (;;) {
      if (iterate()) continue;
      std::unique_lock lock(queue_);
      const auto has_commands = [&] { return first_submitted_ || first_to_end_ || first_call_ != nullptr; };
      commands_.wait(lock, [&] { return closing_ || has_commands(); });
      if (closing_ && !has_commands()) return;
    }
  } catch (...) {
    die(handled_error());
  }
}

bool RequestLoop::iterate() {
  Commands commands = take_commands();
  bool calls = commands.calls;
  bool worked = obey(std::move(commands));
  if (calls && in_flight_ == 0) {
    run_call();
    worked = true;
    calls = false;  // one a turn: requests have theirs in between
  }
  while (!calls && !draining_ && in_flight_ < steps_.size() && submit_step()) worked = true;
  if (in_flight_ > 0) {
    draining_ = micro_batching_ && micro_batching_->drains() && in_flight_ > 1;
    finish_step();
    return true;
  }
  check(worked || scheduler_.running() + scheduler_.waiting() == 0, "the loop has no step for ", scheduler_.running(),
        " running and ", scheduler_.waiting(), " waiting sequences");
  return worked;
}

RequestLoop::Commands RequestLoop::take_commands() noexcept {
  const std::lock_guard lock(queue_);
  last_submitted_ = nullptr;
  return {.submitted = std::exchange(first_submitted_, nullptr),
          .to_end = std::exchange(first_to_end_, nullptr),
          .closing = closing_,
          .calls = first_call_ != nullptr};
}

void RequestLoop::take_over(std::shared_ptr<RequestRecord> record) noexcept {
  record->live_after = live_;
  if (live_ != nullptr) live_->live_before = record.get();
  live_ = record.get();
  record->self = std::move(record);
}

bool RequestLoop::obey(Commands commands) {
  bool worked = commands.submitted != nullptr || commands.to_end != nullptr;
  while (commands.submitted) {
    RequestRecord& record = *commands.submitted;
    take_over(std::exchange(commands.submitted, std::exchange(record.next, nullptr)));
    for (Sequence& sequence : record.sequences) scheduler_.add(sequence);
  }
  while (commands.to_end) {
    // Its link first: once end_as_asked() has looked at it, a caller may list it again, for another choice.
    const std::shared_ptr<RequestRecord> record =
        std::exchange(commands.to_end, std::exchange(commands.to_end->next_to_end, nullptr));
    end_as_asked(*record, false);
  }
  if (commands.closing) {
    for (RequestRecord* record = live_; record != nullptr;) {
      RequestRecord* const after = record->live_after;
      end_as_asked(*record, true);
      record = after;
    }
  }
  return worked;
}

/// Ends the choices that the record's caller, or whoever closes the engine, wants to end.
void RequestLoop::end_as_asked(RequestRecord& record, bool closing) {
  std::shared_ptr<RequestRecord> ended;
  {
    const std::lock_guard lock(queue_);
    record.to_end = false;
    for (Sequence& sequence : record.sequences) {
      if (record.cancel_requested || closing) {
        scheduler_.end(sequence, {RequestState::cancelled, FinishReason::cancelled, {}});
      } else if (record.news[static_cast<std::size_t>(sequence.choice)].stop_requested) {
        scheduler_.end(sequence, {RequestState::finished, FinishReason::stop, {}});
      }
      tell(sequence, options_.clock());
    }
    loop_counts_.kv_blocks_used = pool_.used();
    loop_counts_.kv_blocks_kept = pool_.kept();
    ended = std::move(ended_);
  }
  let_go(std::move(ended));
}

void RequestLoop::run_call() {
  Call* call = nullptr;
  std::optional<Error> rank_failure;  // ends the loop: no later step could run
  {
    const std::lock_guard lock(queue_);
    call = std::exchange(first_call_, first_call_->next);
  }
  try {
    (*call->work)();
  } catch (const Error& error) {
    call->failure = std::current_exception();
    if (error.code() == ErrorCode::rank_failed) rank_failure = error;
  } catch (...) {
    call->failure = std::current_exception();
  }
  {
    const std::lock_guard lock(queue_);
    call->done = true;
  }
  calls_done_.notify_all();
  if (rank_failure) throw Error(*rank_failure);
}

bool RequestLoop::submit_step() {
  if (!runner_) return false;
  InFlight& flight = steps_[(oldest_step_ + in_flight_) % steps_.size()];
  flight.began_s = options_.clock();
  StepShare share;
  if (micro_batching_) {
    MicroBatching::Work work{.prompt_tokens = scheduler_.prompt_tokens_left(), .sequences = scheduler_.running()};
    for (std::size_t i = 0; i < in_flight_; ++i)
      work.generation_in_flight += steps_[(oldest_step_ + i) % steps_.size()].generates ? 1 : 0;
    share = micro_batching_->next(work, runner_->times(), turnaround_s_);
  }
  scheduler_.next(flight.step.parts, share);
  if (flight.step.parts.empty()) return false;
  fill_step_input(flight.step.parts, flight.step.input);
  flight.step.outcomes.assign(flight.step.parts.size(), {});
  flight.generates = std::ranges::any_of(flight.step.parts,
                                         [](const Part& part) { return part.begin >= part.sequence->prompt_tokens; });
  scheduler_.launch(flight.step.parts);
  flight.ticket = runner_->submit(flight.step);
  ++in_flight_;
  if (last_came_s_ > 0.0)  // the last ones' mean
    turnaround_s_ = turnaround_s_ + (options_.clock() - last_came_s_ - turnaround_s_) / 16.0;
  last_came_s_ = 0.0;
  return true;
}

void RequestLoop::finish_step() {
  InFlight& flight = steps_[oldest_step_];
  runner_->wait(flight.ticket);
  last_came_s_ = options_.clock();
  oldest_step_ = (oldest_step_ + 1) % steps_.size();
  --in_flight_;
  scheduler_.commit(flight.step.parts, flight.step.outcomes);
  for (const Outcome& outcome : flight.step.outcomes)
    if (outcome.error && outcome.error->code() == ErrorCode::rank_failed) throw Error(*outcome.error);

  std::shared_ptr<RequestRecord> ended;
  {
    const std::lock_guard lock(queue_);
    const double told_s = options_.clock();
    for (std::size_t i = 0; i < flight.step.parts.size(); ++i)
      tell(*flight.step.parts[i].sequence, told_s, &flight.step.outcomes[i].sampled);
    const double now_s = options_.clock();
    ++loop_counts_.steps;
    loop_counts_.step_s += now_s - std::max(flight.began_s, last_finished_s_);
    last_finished_s_ = now_s;
    loop_counts_.executor_s += flight.step.executor_s;
    loop_counts_.preemptions = scheduler_.preemptions();
    loop_counts_.reused_tokens = scheduler_.reused_tokens();
    loop_counts_.kv_blocks_used = pool_.used();
    loop_counts_.kv_blocks_kept = pool_.kept();
    ended = std::move(ended_);
  }
  let_go(std::move(ended));
}

/// What is new about the sequence goes to its caller's end. Under the lock.
void RequestLoop::tell(Sequence& sequence, double now_s, Sampled* sampled) {
  RequestRecord& record = *sequence.record;
  News& news = record.news[static_cast<std::size_t>(sequence.choice)];
  if (news.reason != FinishReason::running) return;  // told to the end
  const bool ended = is_final(sequence.state);
  if (!ended && sequence.generated() == sequence.told) return;
  if (sequence.generated() > sequence.told) {  // by one: each is told in the turn that drew it
    const std::int32_t token = sequence.tokens.back();
    record.samplers[static_cast<std::size_t>(sequence.choice)].accept(token);
    news.tokens.push_back(token);
    news.times_s.push_back(now_s - record.submitted_s);
    if (record.request.sampling.logprobs) news.logprobs.push_back(std::move(sampled->logprobs));
    ++sequence.told;
  }
  if (news.first_token_s == 0.0 && (sequence.told > 0 || sequence.reason == FinishReason::stop))
    news.first_token_s = now_s - record.submitted_s;
  news.reason = sequence.reason;
  news.error = sequence.error;
  news.fresh = true;
  if (ended && --record.open == 0) settle(record);
  if (!record.client) return;
  if (!record.listed) record.client->with_news.push_back(&record);
  record.listed = true;
  record.client->has_ends |= ended;
  // Who waits for ends is not woken for a token: it would take a core from the step that begins.
  if (ended || record.client->hear_everything > 0) record.client->news.notify_all();
  raise_event(record.client->event_fd);
}

/// All choices of the request have ended: it is counted once, by the worst of them. Under the lock.
void RequestLoop::settle(RequestRecord& record) noexcept {
  RequestState worst = RequestState::finished;
  for (const Sequence& sequence : record.sequences) worst = std::max(worst, sequence.state);
  std::int64_t& ends = worst == RequestState::failed      ? requests_.failed
                       : worst == RequestState::cancelled ? requests_.cancelled
                                                          : requests_.finished;
  ends += record.is_counted ? 1 : 0;
  (record.live_before != nullptr ? record.live_before->live_after : live_) = record.live_after;
  if (record.live_after != nullptr) record.live_after->live_before = record.live_before;
  record.next = std::move(ended_);
  ended_ = std::move(record.self);
}

/// Frees records, whose memory may be large, one after another and outside the lock.
void RequestLoop::let_go(std::shared_ptr<RequestRecord> ended) noexcept {
  while (ended) ended = std::exchange(ended->next, nullptr);
}

/// An invariant of ours is broken, so that nothing that the scheduler says can be relied on, or a rank is gone. Every
/// request fails, at once.
void RequestLoop::die(const Error& error) noexcept {
  for (; in_flight_ > 0; --in_flight_, oldest_step_ = (oldest_step_ + 1) % steps_.size())
    runner_->wait(steps_[oldest_step_].ticket);  // they use what is about to be freed
  std::shared_ptr<RequestRecord> ended;
  {
    const std::lock_guard lock(queue_);
    died_of_ = error;
    while (first_submitted_) take_over(std::exchange(first_submitted_, std::exchange(first_submitted_->next, nullptr)));
    while (first_to_end_) first_to_end_ = std::exchange(first_to_end_->next_to_end, nullptr);
    while (live_ != nullptr) {
      RequestRecord& record = *live_;
      for (Sequence& sequence : record.sequences) {
        if (!is_final(sequence.state)) {
          sequence.state = RequestState::failed;
          sequence.reason = FinishReason::error;
          sequence.error = error;
        }
        tell(sequence, options_.clock());  // the last of them settles the record
      }
    }
    for (Call* call = std::exchange(first_call_, nullptr); call != nullptr; call = call->next) {
      call->failure = std::make_exception_ptr(error);
      call->done = true;
    }
    ended = std::move(ended_);
  }
  calls_done_.notify_all();
  let_go(std::move(ended));
}

}  // namespace lamella
