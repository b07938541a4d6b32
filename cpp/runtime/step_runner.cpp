#include "runtime/step_runner.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <new>
#include <system_error>

#include "base/check.h"
#include "base/clock.h"
#include "runtime/request_record.h"
#include "runtime/sampler.h"

namespace lamella {

namespace {

/// Made once, so that memory which has run out can be reported without any.
const Error& out_of_memory_error() {
  static const Error error(ErrorCode::out_of_memory,
                           "the host ran out of memory during a step; run fewer requests at once");
  return error;
}

/// Whether choosing the part's token takes far longer than waking the threads: 3 us a greedy row of 49,152 logits, 25
/// to 100 us most others (bench_sampler, AVX-512), about 10 us to wake them.
bool takes_long(const Part& part) noexcept {
  const SamplingParams& sampling = part.sequence->record->request.sampling;
  return part.scored > 0 || (part.samples && (sampling.temperature > 0.0 || sampling.logprobs));
}

bool takes_best(const Part& part) noexcept {
  const auto choice = static_cast<std::size_t>(part.sequence->choice);
  return part.scored == 0 && (!part.samples || part.sequence->record->samplers[choice].takes_best());
}

}  // namespace

Error handled_error() noexcept {
  try {
    try {
      throw;
    } catch (const Error& error) {
      return error;
    } catch (const std::bad_alloc&) {
      return out_of_memory_error();
    } catch (const std::exception& error) {
      return {ErrorCode::internal, concat("a step failed: ", error.what())};
    } catch (...) {
      return {ErrorCode::internal, "a step failed with an exception that is no std::exception"};
    }
  } catch (...) {  // no memory for the message
    return out_of_memory_error();
  }
}

StepRunner::StepRunner(std::vector<StageExecutors> stages, ThreadTeam& team, const LogitKernels& logit_kernels,
                       std::int64_t vocabulary, int steps_in_flight)
    : stages_(std::move(stages)),
      team_(team),
      vocabulary_(static_cast<std::size_t>(vocabulary)),
      scratch_(static_cast<std::size_t>(team.size()), SamplerScratch(logit_kernels)),
      ring_(static_cast<std::size_t>(steps_in_flight), nullptr),
      done_(stages_.size(), 0) {
  static_cast<void>(out_of_memory_error());
  if (stages_.size() == 1 && steps_in_flight == 1) return;
  try {
    for (std::size_t stage = 0; stage < stages_.size(); ++stage) workers_.emplace_back([this, stage] { work(stage); });
  } catch (const std::system_error& error) {
    stop();
    throw Error(ErrorCode::out_of_memory, concat("the operating system gave no thread for steps: ", error.what()));
  }
}

StepRunner::~StepRunner() { stop(); }

void StepRunner::stop() noexcept {
  {
    const std::lock_guard lock(guard_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

Ticket StepRunner::submit(Step& step) {
  step.greedy = stages_.back().greedy != nullptr && std::ranges::any_of(step.parts, &Part::samples) &&
                std::ranges::all_of(step.parts, takes_best);
  const std::lock_guard lock(guard_);
  check(submitted_ - done_.back() < ring_.size(), "more than ", ring_.size(), " steps in flight");
  ring_[submitted_ % ring_.size()] = &step;
  changed_.notify_all();
  return ++submitted_;
}

void StepRunner::wait(Ticket ticket) noexcept {
  if (workers_.empty()) {
    for (Ticket& done = done_.front(); done < ticket; ++done)
      run(*ring_[done % ring_.size()], 0, static_cast<std::int64_t>(done));
    return;
  }
  std::unique_lock lock(guard_);
  changed_.wait(lock, [&] { return done_.back() >= ticket; });
}

void StepRunner::work(std::size_t stage) noexcept {
  std::unique_lock lock(guard_);
  Ticket& done = done_[stage];
  const Ticket& ready = stage == 0 ? submitted_ : done_[stage - 1];
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || done < ready; });
    if (done == ready) return;
    Step& step = *ring_[done % ring_.size()];
    const auto number = static_cast<std::int64_t>(done);
    lock.unlock();
    run(step, stage, number);
    lock.lock();
    ++done;
    changed_.notify_all();
  }
}

void StepRunner::run(Step& step, std::size_t stage, std::int64_t number) noexcept {
  try {
    run_plan(step, stage, number);
  } catch (...) {
    if (stage + 1 < stages_.size()) return;  // the last one has failed with it: ranks fail together
    const Error failure = handled_error();
    for (Outcome& outcome : step.outcomes) outcome.error = failure;
  }
}

void StepRunner::run_plan(Step& step, std::size_t stage, std::int64_t number) {
  const StageExecutors& executors = stages_[stage];
  StageRun own{.stage = static_cast<std::int32_t>(stage),
               .step = number,
               .begin_s = now_seconds(),
               .sequences = static_cast<std::int64_t>(step.parts.size())};
  for (const Part& part : step.parts) own.tokens += part.count;
  const auto end = [&] {
    own.end_s = now_seconds();
    if (stage + 1 == stages_.size()) step.executor_s = own.end_s - own.begin_s;
    note(own);
  };
  std::span<const float> rows;
  try {
    rows = (step.greedy ? *executors.greedy : *executors.logits).run(step.input);
  } catch (...) {
    end();
    throw;
  }
  end();
  if (stage + 1 < stages_.size()) return;
  if (step.greedy) finish_greedy(step, rows);
  else finish_parts(step, rows);
}

void StepRunner::note(const StageRun& run) {
  constexpr std::size_t most_runs = 65'536;
  const std::lock_guard lock(guard_);
  if (run.stage == 0) fit_.add(run.tokens, run.end_s - run.begin_s);
  if (recording_ && runs_.size() < most_runs) runs_.push_back(run);
}

StepTimes StepRunner::times() const {
  const std::lock_guard lock(guard_);
  return fit_.times();
}

void StepRunner::record_runs(bool record) {
  const std::lock_guard lock(guard_);
  runs_.clear();
  recording_ = record;
}

std::vector<StageRun> StepRunner::runs() const {
  const std::lock_guard lock(guard_);
  return runs_;
}

void StepRunner::finish_greedy(Step& step, std::span<const float> best) {
  std::size_t row = 0;
  for (std::size_t i = 0; i < step.parts.size(); ++i) {
    if (!step.parts[i].samples) continue;
    try {
      step.outcomes[i].sampled = Sampler::next(best[2 * row], std::bit_cast<std::int32_t>(best[2 * row + 1]));
    } catch (...) {
      step.outcomes[i].error = handled_error();
    }
    ++row;
  }
}

void StepRunner::finish_parts(Step& step, std::span<const float> logits) {
  const auto finish = [&](std::size_t i, std::size_t row, SamplerScratch& scratch) {
    const auto rows = static_cast<std::size_t>(step.parts[i].rows());
    try {
      finish_part(step.parts[i], logits.subspan(row * vocabulary_, rows * vocabulary_), scratch, step.outcomes[i]);
    } catch (...) {
      step.outcomes[i].error = handled_error();
    }
    return rows;
  };
  const bool worth_waking = step.parts.size() > 1 && std::ranges::any_of(step.parts, takes_long);
  if (!worth_waking || team_.size() == 1) {
    std::size_t row = 0;
    for (std::size_t i = 0; i < step.parts.size(); ++i) row += finish(i, row, scratch_.front());
    return;
  }
  // In turn: each thread walks all parts for their rows' places, and finishes those that it is the first to reach.
  std::atomic<std::size_t> next{0};
  team_.run([&](int member) {
    std::size_t mine = next++, row = 0;
    for (std::size_t i = 0; i < step.parts.size(); ++i) {
      if (i == mine) {
        finish(i, row, scratch_[static_cast<std::size_t>(member)]);
        mine = next++;
      }
      row += static_cast<std::size_t>(step.parts[i].rows());
    }
  });
}

void StepRunner::finish_part(const Part& part, std::span<const float> rows, SamplerScratch& scratch,
                             Outcome& outcome) const {
  RequestRecord& record = *part.sequence->record;
  const auto scored = rows.first(static_cast<std::size_t>(part.scored) * vocabulary_);
  if (!record.rows.empty()) {
    std::ranges::copy(scored, record.rows.begin() + part.first_scored * static_cast<std::ptrdiff_t>(vocabulary_));
  } else {
    for (std::int64_t i = 0; i < part.scored; ++i) {
      const auto next = static_cast<std::size_t>(part.first_scored + i + 1);
      record.prompt_logprobs[next] =
          token_logprobs(scored.subspan(static_cast<std::size_t>(i) * vocabulary_, vocabulary_),
                         record.request.prompt[next], *record.request.sampling.prompt_logprobs, scratch);
    }
  }
  if (part.samples)
    outcome.sampled =
        record.samplers[static_cast<std::size_t>(part.sequence->choice)].next(rows.last(vocabulary_), scratch);
}

}  // namespace lamella
