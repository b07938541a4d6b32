// Where scheduler and executors meet: submit(step) -> ticket, wait(ticket), one or more steps in flight, through one stage of
// a pipeline or several.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "base/thread_team.h"
#include "runtime/executor.h"
#include "runtime/micro_batches.h"
#include "runtime/scheduler.h"

namespace lamella {

/// One step of work: what goes in, flat, and what came of each part. While it is in flight it belongs to the runner.
struct Step {
  std::vector<Part> parts;
  StepInput input;
  std::vector<Outcome> outcomes;
  double executor_s = 0.0;  // seconds in the last stage's executor
  bool greedy = false;  // the runner's: whether all of its rows only want the best token
};

/// What runs a stage: the plan of logits, and that of PlanOutput::greedy, or null where there is none.
struct StageExecutors {
  Executor* logits = nullptr;
  Executor* greedy = nullptr;
};

/// A step's time in a stage, in seconds of the runner's clock (base/clock.h).
struct StageRun {
  std::int32_t stage = 0;
  std::int64_t step = 0;  // counted from the runner's first
  double begin_s = 0.0, end_s = 0.0;
  std::int64_t sequences = 0, tokens = 0;
};

using Ticket = std::uint64_t;

/// Runs steps in the order in which they are submitted: the plan, then a token for each row that samples, the rows
/// spread over the device's threads where that is worth waking them. Where all of a step's rows only want the best token,
/// the plan is one that finds it and keeps no logits. With one stage and one step in flight it does so within wait(),
/// on the caller's thread; otherwise each stage has a thread, which takes each step when the stage before has done with it.
class StepRunner {
 public:
  /// `team` is that of the device that samples, the last stage's. Errors: out_of_memory where the operating system gives no
  /// thread.
  StepRunner(std::vector<StageExecutors> stages, ThreadTeam& team, const LogitKernels& logit_kernels,
             std::int64_t vocabulary, int steps_in_flight);
  ~StepRunner();
  StepRunner(const StepRunner&) = delete;
  StepRunner& operator=(const StepRunner&) = delete;

  /// At most `steps_in_flight` steps at a time. Fails with a broken invariant alone.
  [[nodiscard]] Ticket submit(Step& step);
  /// Returns when the step and all before it are done: it never throws, a step that failed says so in its outcomes.
  void wait(Ticket ticket) noexcept;

  /// What the first stage's steps have taken: the others wait for it, and their share of the work is alike.
  [[nodiscard]] StepTimes times() const;
  /// Whether to keep the times of stages from now on; either forgets what was kept.
  void record_runs(bool record);
  /// What was kept since, at most the first 65,536 runs, in order of their ends.
  [[nodiscard]] std::vector<StageRun> runs() const;

 private:
  void run(Step& step, std::size_t stage, std::int64_t number) noexcept;
  void run_plan(Step& step, std::size_t stage, std::int64_t number);
  void note(const StageRun& run);
  void finish_greedy(Step& step, std::span<const float> best);
  void finish_parts(Step& step, std::span<const float> logits);
  void finish_part(const Part& part, std::span<const float> rows, SamplerScratch& scratch, Outcome& outcome) const;
  void work(std::size_t stage) noexcept;
  void stop() noexcept;

  std::vector<StageExecutors> stages_;
  ThreadTeam& team_;
  std::size_t vocabulary_;
  std::vector<SamplerScratch> scratch_;  // one a thread of the team
  std::vector<Step*> ring_;  // of steps in flight, by ticket
  Ticket submitted_ = 0;
  std::vector<Ticket> done_;  // by each stage
  mutable std::mutex guard_;
  std::condition_variable changed_;
  bool stopping_ = false, recording_ = false;
  StepTimesFit fit_;
  std::vector<StageRun> runs_;
  std::vector<std::thread> workers_;  // one a stage, or none
};

/// The exception that is being handled, as a request reports it.
[[nodiscard]] Error handled_error() noexcept;

}  // namespace lamella
