// A team of threads that walks a plan together: one parallel region a step, a light barrier between ops.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/epoch.h"

namespace lamella {

/// Meets the members of a team again and again. They poll for a while, since ops are short, then sleep, so that a team
/// with more threads than cores still moves on.
class Barrier {
 public:
  /// Returns when so many threads have come. All name the same number.
  void wait(int members) noexcept;
  /// Whether those who come first poll for the others.
  [[nodiscard]] bool polls() const noexcept { return patience_.has_trust(); }

 private:
  std::atomic<int> arrived_{0};
  Epoch meetings_;
  Patience patience_;
};

/// `size` threads, of which the caller is the first; the others sleep between calls of run(). They poll for a while first: the
/// next step follows soon, and to be woken takes longer than that where idle cores halt, as a virtual machine's do.
class ThreadTeam {
 public:
  /// Errors: out_of_memory where the operating system gives fewer threads, or no memory for them; none is left running.
  explicit ThreadTeam(int size);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  [[nodiscard]] int size() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(index) once on each of the first `members` members and returns when all have ended; the others sleep on.
  /// The first exception of any member is rethrown. A body that calls barrier() must call it equally often on all of
  /// them, also when it fails.
  void run(int members, const std::function<void(int)>& body);
  void run(const std::function<void(int)>& body) { run(size(), body); }
  void barrier() noexcept { barrier_.wait(members_); }
  /// Whether members have met at the barrier soon after each other: none of them is kept off its core.
  [[nodiscard]] bool runs_together() const noexcept { return barrier_.polls(); }

 private:
  void stop();
  void work(int index);
  void call(int index) noexcept;

  static constexpr std::chrono::nanoseconds between_steps{200'000};

  Barrier barrier_, finished_;
  Patience between_;
  int members_ = 1;  // of the round that runs
  const std::function<void(int)>* body_ = nullptr;
  std::unique_ptr<Epoch[]> rounds_;  // of each member: those who take no part are not woken
  std::atomic<bool> stopping_{false};
  std::mutex failing_;
  std::exception_ptr failure_;
  const pid_t owner_;  // a forked child has none of the threads
  std::vector<std::thread> workers_;
};

}  // namespace lamella
