// What the groups of an MpiWorld share: who is where, whether a rank has failed, and how they wait.
#pragma once

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "comm/mpi_requests.h"
#include "comm/mpi_service.h"
#include "comm/mpi_world.h"

namespace lamella::comm {

/// One rank's view of the job. Two communicators of its own keep its messages from those of a process that uses MPI
/// itself: one for data, one for control messages, which every waiting thread looks for:
/// - reports that a rank has failed, which its finder sends to all others;
/// - questions whether a rank waits for somebody itself, and answers. Who waits for several ranks asks before it
///   accuses one: the rank that all wait for does not answer, while those who wait for it as well do.
///
/// No message is authenticated: under mpirun and srun the launcher decides who is in the job.
class MpiState {
 public:
  using Clock = std::chrono::steady_clock;

  /// Returns when all ranks have come. Errors: see MpiWorld.
  explicit MpiState(const MpiOptions& options);
  ~MpiState();
  MpiState(const MpiState&) = delete;
  MpiState& operator=(const MpiState&) = delete;

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int ranks() const noexcept { return static_cast<int>(hosts_.size()); }
  [[nodiscard]] std::chrono::milliseconds deadline() const noexcept { return options_.deadline; }
  [[nodiscard]] MPI_Comm data() const noexcept { return data_; }
  /// "rank 3 on node7".
  [[nodiscard]] std::string name_of(int rank) const;
  /// A tag of the data communicator, and the one after it, for the next group. Errors: out_of_memory where MPI has no
  /// more.
  [[nodiscard]] int take_tags();

  [[nodiscard]] bool has_failed() const noexcept { return failed_.load(std::memory_order_acquire); }
  /// Keeps the first report and sends it to all. Reports that ranks make at the same moment may reach the others in
  /// another order.
  void fail(int rank, std::string_view cause) noexcept;
  /// Throws rank_failed with the first report. Only where has_failed().
  [[noreturn]] void throw_failure();
  /// Takes what has come on the control communicator. Errors: rank_failed, where a rank has failed.
  void look();

  /// Waits so long for what a rank that knows more reports. Errors: rank_failed.
  void listen(std::chrono::milliseconds time);

  /// Returns whether none of the requests is left; false at `end`. Errors: rank_failed.
  [[nodiscard]] bool wait(MpiRequests& requests, Clock::time_point end);
  /// As wait(), for what all of them do: asks before the end who of those that are missing waits as well, and accuses
  /// one that does not. `look_at_calls` is called before that: it may know better. Errors: rank_failed.
  template <typename Look>
  void wait_for(MpiRequests& requests, std::string_view what, std::string_view group,
                std::chrono::milliseconds deadline, const Look& look_at_calls) {
    const Clock::time_point begin = Clock::now();
    if (wait(requests, begin + deadline - grace(deadline))) return;
    const std::uint32_t question = ask(requests.waited_for());
    if (wait(requests, begin + deadline)) return;
    look_at_calls();
    accuse(requests.waited_for(), question, what, group, deadline);
  }
  /// Sends without waiting; MPI keeps reading the buffer.
  void send_away(MpiService::Buffer buffer, Bytes message, int to, int tag);

 private:
  struct Control;

  [[nodiscard]] static std::chrono::milliseconds grace(std::chrono::milliseconds deadline) noexcept;
  void call_roll();
  void duplicate_world();
  void take_control_message(const Control& message) noexcept;
  void send_control(const Control& message, int to) noexcept;
  /// Nothing where only one is asked after. Returns the question's number.
  [[nodiscard]] std::uint32_t ask(const std::vector<int>& ranks);
  [[noreturn]] void accuse(const std::vector<int>& ranks, std::uint32_t question, std::string_view what,
                           std::string_view group, std::chrono::milliseconds deadline);
  /// Returns whether this is the first.
  bool note_failure(int rank, std::string_view cause) noexcept;
  [[nodiscard]] bool meet_last() noexcept;

  const MpiOptions options_;
  MpiService service_;
  int rank_ = 0;
  std::vector<std::string> hosts_;  // by rank
  MPI_Comm data_ = MPI_COMM_NULL, control_ = MPI_COMM_NULL;
  int next_tag_ = 0, last_tag_ = 0;

  std::atomic<bool> failed_{false};
  std::mutex failure_mutex_;
  std::string failure_;

  std::mutex control_mutex_;  // of what follows; taken before failure_mutex_
  MPI_Request control_request_ = MPI_REQUEST_NULL;
  MpiService::Buffer control_buffer_;
  std::atomic<bool> leaves_{false};
  std::atomic<std::uint32_t> questions_{0};
  std::vector<std::atomic<std::uint32_t>> answers_;  // by rank: the last question that it answered
};

}  // namespace lamella::comm
