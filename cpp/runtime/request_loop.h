// The engine's loop: one queue that every caller is a client of, and the thread that serves it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "lamella/request.h"
#include "runtime/request_record.h"
#include "runtime/scheduler.h"
#include "runtime/step_runner.h"

namespace lamella {

/// Of an engine's requests: received = running + finished + cancelled + rejected + failed, whenever one looks.
struct RequestCounts {
  std::int64_t received = 0, running = 0, finished = 0, cancelled = 0, rejected = 0, failed = 0;
};

/// What the loop has done since it began.
struct LoopCounts {
  std::int64_t steps = 0, preemptions = 0, reused_tokens = 0;
  double step_s = 0.0, executor_s = 0.0;  // from preparing a step to telling of its results; of that, in the executor
  std::int64_t kv_blocks_used = 0, kv_blocks_kept = 0;
};

struct LoopOptions {
  SchedulerLimits limits;
  std::int64_t vocabulary = 0;
  int steps_in_flight = 1;
  std::function<double()> clock;  // seconds
  const LogitKernels* logit_kernels = &plain_logit_kernels;  // the device's
  PipelineOptions pipeline = {};  // of several stages
};

/// Callers submit, cancel and take news from any thread; the loop's own thread alone schedules, runs steps and keeps
/// the books, so that nothing of that needs a lock. A submission brings all the memory that its requests will need.
///
/// `iterate` is one turn of the loop, for the thread that `start` makes, or for a test that has none.
class RequestLoop {
 public:
  /// There are no `stages` for models that generate nothing; they, the team, the pool and what `scrub` uses outlive close().
  /// Errors: those of StepRunner.
  RequestLoop(LoopOptions options, std::vector<StageExecutors> stages, ThreadTeam& team, KvBlockPool& pool,
              KvCache::Scrub scrub);
  ~RequestLoop();
  RequestLoop(const RequestLoop&) = delete;
  RequestLoop& operator=(const RequestLoop&) = delete;

  /// Begins to serve the queue on a thread of its own. Errors: out_of_memory.
  void start();
  /// Ends every request as cancelled, refuses new ones and stops the thread. Returns when that is done; a second call
  /// does nothing. Errors: invalid_argument on the loop's own thread, which cannot wait for itself.
  void close();

  // ---- clients, any thread ----
  /// Queues requests, all of them or none. Their ids ascend in order. Errors: std::bad_alloc, and invalid_argument once
  /// closed, or engine_dead; they leave no trace.
  void submit(const std::vector<std::shared_ptr<RequestRecord>>& records, const std::shared_ptr<ClientState>& client);
  void count_rejected(std::int64_t requests);
  /// The request ends before its next step; unknown ids are ignored, since it may have ended by itself.
  void cancel(ClientState& client, RequestId id);
  /// The choice ends as finished, with the reason `stop`, before its next step: its caller has found what it was to go
  /// on to. Unknown ones are ignored.
  void stop(ClientState& client, RequestId id, std::int32_t choice);
  /// The caller leaves: its requests are cancelled, and nobody is told.
  void leave(ClientState& client) noexcept;
  /// News of the client's requests, after at most `timeout_s` seconds: empty then, and where nothing is open. Of each
  /// choice that has news, one Progress; of one that has ended, the last. With Hear::ends it waits for the end of a choice,
  /// and takes what else is new then or after the time. Errors: std::bad_alloc, after which no news is lost.
  [[nodiscard]] std::vector<Progress> take_news(ClientState& client, double timeout_s, Hear hear);
  /// The client's requests whose end was not told yet.
  [[nodiscard]] std::size_t open_requests(const ClientState& client) const;
  /// A descriptor that polls as readable while the client has news. Errors: io_error.
  [[nodiscard]] int event_fd(ClientState& client);
  /// Runs `work` on the loop's thread between two steps, and returns when it is done. What it throws is thrown here.
  /// Errors: as submit().
  void call(const std::function<void()>& work);
  [[nodiscard]] RequestCounts request_counts() const;
  [[nodiscard]] LoopCounts loop_counts() const;
  /// StepRunner's; nothing where there are no stages.
  void record_runs(bool record);
  [[nodiscard]] std::vector<StageRun> runs() const;
  [[nodiscard]] StepTimes step_times() const;
  /// As many micro-batches as a pipeline would have now for so much work; 1 and 1 without one.
  [[nodiscard]] MicroBatches micro_batches(const MicroBatching::Work& work) const;

  // ---- the loop ----
  /// One turn: takes what was submitted and cancelled, submits a step, takes the results of the oldest one in flight.
  /// False where there was nothing to do.
  bool iterate();

 private:
  struct Call {
    const std::function<void()>* work;
    std::exception_ptr failure;
    bool done = false;
    Call* next = nullptr;
  };
  struct Commands {
    std::shared_ptr<RequestRecord> submitted, to_end;
    bool closing = false, calls = false;
  };
  void run() noexcept;
  void end_loop();
  void refuse_if_closed() const;
  void list_to_end(const std::shared_ptr<RequestRecord>& record) noexcept;
  void take_over(std::shared_ptr<RequestRecord> record) noexcept;
  [[nodiscard]] Commands take_commands() noexcept;
  [[nodiscard]] bool obey(Commands commands);
  void run_call();
  [[nodiscard]] bool submit_step();
  void finish_step();
  void end_as_asked(RequestRecord& record, bool closing);
  void tell(Sequence& sequence, double now_s, Sampled* sampled = nullptr);
  void settle(RequestRecord& record) noexcept;
  void let_go(std::shared_ptr<RequestRecord> ended) noexcept;
  void die(const Error& error) noexcept;

  LoopOptions options_;
  KvBlockPool& pool_;
  Scheduler scheduler_;
  std::optional<StepRunner> runner_;  // until the loop ends; figures of it are asked for under closing_guard_
  std::optional<MicroBatching> micro_batching_;  // of a pipeline

  // The loop's alone:
  struct InFlight {
    Step step;
    Ticket ticket = 0;
    double began_s = 0.0;
    bool generates = false;  // for some sequence that has its prompt behind it
  };
  std::vector<InFlight> steps_;  // a ring
  std::size_t oldest_step_ = 0, in_flight_ = 0;
  double last_finished_s_ = 0.0;
  bool draining_ = false;  // no step begins before all that are in flight have ended
  double last_came_s_ = 0.0;  // when the last step came out of the pipeline
  std::atomic<double> turnaround_s_ = 0.0;  // from then to the next one's way in
  RequestRecord* live_ = nullptr;  // all that it works on

  mutable std::mutex queue_;  // guards what follows, and what records and clients say it guards
  std::condition_variable commands_, calls_done_;
  std::shared_ptr<RequestRecord> first_submitted_, first_to_end_, ended_;
  RequestRecord* last_submitted_ = nullptr;
  Call *first_call_ = nullptr, *last_call_ = nullptr;
  RequestId next_id_ = 1;
  RequestCounts requests_;
  LoopCounts loop_counts_;
  bool closing_ = false;
  std::optional<Error> died_of_;

  mutable std::mutex closing_guard_;  // one close() at a time; taken first
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace lamella
