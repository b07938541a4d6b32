// A counter on which threads wait for the next count: what barriers and teams of threads are made of.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

namespace lamella {

/// Whether the threads of a team poll before they sleep, which pays where they run side by side: a wait is shorter then
/// than waking a thread takes. Where some are kept off their cores, by a busy neighbour or by a team beside this one,
/// those who poll keep a core from those they wait for: two threads that the system put on one core would take twice the
/// time. So polling that ends no wait is given up after a while, and tried again now and then, since threads that both
/// sleep would wait for each other's waking for ever. All of a team share one: updates may get lost, which costs nothing
/// but time.
class Patience {
 public:
  /// Longer than the uneven ends of an op, about as long as waking a thread takes, far shorter than a time slice.
  static constexpr std::chrono::nanoseconds length{25'000};

  [[nodiscard]] bool has_trust() const noexcept { return trust_.load(std::memory_order_relaxed) > 0; }
  /// Asked once a wait.
  [[nodiscard]] bool polls() noexcept {
    if (trust_.load(std::memory_order_relaxed) > 0) return true;
    const int slept = slept_.load(std::memory_order_relaxed) + 1;
    slept_.store(slept % sleeps_a_trial, std::memory_order_relaxed);
    return slept == sleeps_a_trial;
  }
  void was_rewarded() noexcept {
    const int trust = trust_.load(std::memory_order_relaxed);
    if (trust < most_trust) trust_.store(trust == 0 ? most_trust : trust + 1, std::memory_order_relaxed);
  }
  void was_wasted() noexcept {
    const int trust = trust_.load(std::memory_order_relaxed);
    if (trust > 0) trust_.store(trust - 1, std::memory_order_relaxed);
  }

 private:
  static constexpr int most_trust = 8, sleeps_a_trial = 32;
  std::atomic<int> trust_{most_trust}, slept_{0};
};

/// Counts on and wakes who waits. Atomics and the system's futex, not a condition variable: a forked child could not
/// destroy one that its parent's threads wait on. Not std::atomic's wait() either, which gives its time slice away
/// before it sleeps: beside a busy neighbour that is milliseconds.
class alignas(64) Epoch {
 public:
  [[nodiscard]] std::uint32_t count() const noexcept { return count_.load(std::memory_order_acquire); }
  /// What this thread wrote before is visible to those who see the new count.
  void advance() noexcept;
  /// Returns once the count is another than `seen`. Polls for so long before it sleeps.
  void wait_beyond(std::uint32_t seen, Patience& patience, std::chrono::nanoseconds length = Patience::length) noexcept;
  /// The same, but returns false where the count has not changed within `limit`.
  [[nodiscard]] bool wait_beyond_for(std::uint32_t seen, Patience& patience, std::chrono::nanoseconds limit) noexcept;

 private:
  /// Whether polling saw another count than `seen`.
  [[nodiscard]] bool poll_beyond(std::uint32_t seen, Patience& patience, std::chrono::nanoseconds length) noexcept;
  /// With no end, until the count changes. Returns whether it did.
  bool sleep_beyond(std::uint32_t seen, std::optional<std::chrono::steady_clock::time_point> end) noexcept;

  std::atomic<std::uint32_t> count_{0};
  std::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace lamella
