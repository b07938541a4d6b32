// A team of threads that walks a plan together: one parallel region a step, a light barrier between ops.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lamella {

/// Meets all members of a team again and again. Spins briefly, since ops are short, then sleeps, so that a team with
/// more threads than cores still moves on.
class Barrier {
 public:
  explicit Barrier(int members) : members_(members) {}
  void wait();

 private:
  const int members_;
  std::atomic<int> arrived_{0};
  std::atomic<std::uint32_t> generation_{0};
};

/// `size` threads, of which the caller is the first; the others sleep between calls of run().
class ThreadTeam {
 public:
  /// Errors: out_of_memory where the operating system gives fewer threads, or no memory for them; none is left running.
  explicit ThreadTeam(int size);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  [[nodiscard]] int size() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(index) once on every member and returns when all have ended. The first exception of any member is
  /// rethrown. A body that calls barrier() must call it equally often on every member, also when it fails.
  void run(const std::function<void(int)>& body);
  void barrier() { barrier_.wait(); }

 private:
  void start_round();
  void stop();
  void work(int index);
  void call(int index) noexcept;

  Barrier barrier_, finished_;
  const std::function<void(int)>* body_ = nullptr;
  // Atomic waiting, not a condition variable: a forked child could not destroy one that its parent's threads wait on.
  std::atomic<std::uint32_t> round_{0};
  std::atomic<bool> stopping_{false};
  std::mutex failing_;
  std::exception_ptr failure_;
  const pid_t owner_;  // a forked child has none of the threads
  std::vector<std::thread> workers_;
};

}  // namespace lamella
