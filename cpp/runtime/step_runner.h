// Where scheduler and executor meet: submit(step) -> ticket, wait(ticket), one or more steps in flight.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "base/thread_team.h"
#include "runtime/executor.h"
#include "runtime/scheduler.h"

namespace lamella {

/// One step of work: what goes in, flat, and what came of each part. While it is in flight it belongs to the runner.
struct Step {
  std::vector<Part> parts;
  StepInput input;
  std::vector<Outcome> outcomes;
  double executor_s = 0.0;  // seconds in the executor
};

using Ticket = std::uint64_t;

/// Runs steps in the order in which they are submitted: the plan, then a token for each row that samples, the rows
/// spread over the device's threads where that is worth waking them. Where all of a step's rows only want the best token,
/// the plan is one that finds it and keeps no logits. With one step in flight it does so within wait(),
/// on the caller's thread; with more, on a thread of its own, while the caller prepares the next.
class StepRunner {
 public:
  /// `executor` runs the plan of logits, `greedy` that of PlanOutput::greedy, or is null where there is none. Errors:
  /// out_of_memory where the operating system gives no thread.
  StepRunner(Executor& executor, Executor* greedy, ThreadTeam& team, const LogitKernels& logit_kernels,
             std::int64_t vocabulary, int steps_in_flight);
  ~StepRunner();
  StepRunner(const StepRunner&) = delete;
  StepRunner& operator=(const StepRunner&) = delete;

  /// At most `steps_in_flight` steps at a time. Fails with a broken invariant alone.
  [[nodiscard]] Ticket submit(Step& step);
  /// Returns when the step and all before it are done: it never throws, a step that failed says so in its outcomes.
  void wait(Ticket ticket) noexcept;

 private:
  void run(Step& step) noexcept;
  void run_plan(Step& step);
  void finish_greedy(Step& step, std::span<const float> best);
  void finish_parts(Step& step, std::span<const float> logits);
  void finish_part(const Part& part, std::span<const float> rows, SamplerScratch& scratch, Outcome& outcome) const;
  void work() noexcept;

  Executor& executor_;
  Executor* greedy_;
  ThreadTeam& team_;
  std::size_t vocabulary_;
  std::vector<SamplerScratch> scratch_;  // one a thread of the team
  std::vector<Step*> ring_;  // of steps in flight, by ticket
  Ticket submitted_ = 0, done_ = 0;
  std::mutex guard_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread worker_;
};

/// The exception that is being handled, as a request reports it.
[[nodiscard]] Error handled_error() noexcept;

}  // namespace lamella
