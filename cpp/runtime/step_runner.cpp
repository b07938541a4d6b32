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

StepRunner::StepRunner(Executor& executor, Executor* greedy, ThreadTeam& team, const LogitKernels& logit_kernels,
                       std::int64_t vocabulary, int steps_in_flight)
    : executor_(executor),
      greedy_(greedy),
      team_(team),
      vocabulary_(static_cast<std::size_t>(vocabulary)),
      scratch_(static_cast<std::size_t>(team.size()), SamplerScratch(logit_kernels)),
      ring_(static_cast<std::size_t>(steps_in_flight), nullptr) {
  static_cast<void>(out_of_memory_error());
  if (steps_in_flight == 1) return;
  try {
    worker_ = std::thread([this] { work(); });
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::out_of_memory, concat("the operating system gave no thread for steps: ", error.what()));
  }
}

StepRunner::~StepRunner() {
  if (!worker_.joinable()) return;
  {
    const std::lock_guard lock(guard_);
    stopping_ = true;
  }
  changed_.notify_all();
  worker_.join();
}

Ticket StepRunner::submit(Step& step) {
  const std::lock_guard lock(guard_);
  check(submitted_ - done_ < ring_.size(), "more than ", ring_.size(), " steps in flight");
  ring_[submitted_ % ring_.size()] = &step;
  changed_.notify_all();
  return ++submitted_;
}

void StepRunner::wait(Ticket ticket) noexcept {
  if (!worker_.joinable()) {
    while (done_ < ticket) run(*ring_[done_++ % ring_.size()]);
    return;
  }
  std::unique_lock lock(guard_);
  changed_.wait(lock, [&] { return done_ >= ticket; });
}

void StepRunner::work() noexcept {
  std::unique_lock lock(guard_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || done_ < submitted_; });
    if (done_ == submitted_) return;
    Step& step = *ring_[done_ % ring_.size()];
    lock.unlock();
    run(step);
    lock.lock();
    ++done_;
    changed_.notify_all();
  }
}

void StepRunner::run(Step& step) noexcept {
  try {
    run_plan(step);
  } catch (...) {
    const Error failure = handled_error();
    for (Outcome& outcome : step.outcomes) outcome.error = failure;
  }
}

void StepRunner::run_plan(Step& step) {
  const bool greedy = greedy_ != nullptr && std::ranges::any_of(step.parts, &Part::samples) &&
                      std::ranges::all_of(step.parts, takes_best);
  const double started = now_seconds();
  std::span<const float> rows;
  try {
    rows = (greedy ? *greedy_ : executor_).run(step.input);
  } catch (...) {
    step.executor_s = now_seconds() - started;
    throw;
  }
  step.executor_s = now_seconds() - started;
  if (greedy) finish_greedy(step, rows);
  else finish_parts(step, rows);
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
