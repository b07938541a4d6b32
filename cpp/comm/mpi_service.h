// MPI within this process: a thread that begins it, moves what was sent, and ends it.
#pragma once

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <thread>

namespace lamella::comm {

/// How long a thread that waits looks again at once, then lets others run, then sleeps: MPI offers nothing to sleep on.
/// The times: what a message takes within a machine, some time slices, and what a wait that long can be late by.
class Backoff {
 public:
  void pause();
  /// Whether the waiter has begun to sleep.
  [[nodiscard]] bool sleeps() const noexcept { return sleep_ != std::chrono::microseconds(0); }

 private:
  static constexpr int polls = 200, yields = 200;
  int pauses_ = 0;
  std::chrono::microseconds sleep_{0};
};

/// A thread, since some waits on MPI have no nonblocking form or nobody to do the waiting:
/// - MPI_Init_thread and MPI_Finalize, which wait for all ranks, however long. Who asks for them here waits no longer
///   than a limit; then the thread is left to itself, and to the end of the process.
/// - Large messages leave only while their sender calls MPI, and Communicator::send returns before.
///
/// It sleeps while nothing of the kind is on its way.
class MpiService {
 public:
  using Buffer = std::unique_ptr<std::byte[]>;

  /// Begins MPI unless the process has. Errors: rank_failed where that takes longer than `limit`; invalid_argument for
  /// an MPI that has ended, or whose threads may not all call it.
  explicit MpiService(std::chrono::milliseconds limit);
  /// Without end() before: whatever MPI still reads stays where it is, for ever.
  ~MpiService();
  MpiService(const MpiService&) = delete;
  MpiService& operator=(const MpiService&) = delete;

  /// Keeps what MPI reads until it has left.
  void keep(MPI_Request request, Buffer buffer);
  [[nodiscard]] bool is_idle() const;
  /// Once all ranks are known to be at this point: frees the communicators, and ends MPI if it began here. Returns
  /// whether that was done within `limit`.
  bool end(std::function<void()> free_communicators, std::chrono::milliseconds limit);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace lamella::comm
