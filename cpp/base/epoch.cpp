#include "base/epoch.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace lamella {
namespace {

using Clock = std::chrono::steady_clock;

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// The system looks at `word` once more before it puts the thread to sleep. It may also return for no reason.
void sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t value) noexcept {
  static_cast<void>(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0));
}

void wake_all(const std::atomic<std::uint32_t>& word) noexcept {
  static_cast<void>(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0));
}

}  // namespace

static_assert(sizeof(std::atomic<std::uint32_t>) == 4, "the system waits on words of 32 bits");

void Epoch::advance() noexcept {
  // In one order with sleep_beyond(): either this thread sees the sleeper, or the sleeper, which counts itself first,
  // sees the new count.
  count_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) wake_all(count_);
}

void Epoch::wait_beyond(std::uint32_t seen, Patience& patience, std::chrono::nanoseconds length) noexcept {
  constexpr int polls = 16;  // between looks at the clock, each of which takes as long as two or three polls
  if (!patience.polls()) return sleep_beyond(seen);
  Clock::time_point end{};
  do {
    for (int i = 0; i < polls; ++i) {
      if (count() != seen) return patience.was_rewarded();
      relax();
    }
    if (end == Clock::time_point{}) end = Clock::now() + length;
  } while (Clock::now() < end);
  patience.was_wasted();
  sleep_beyond(seen);
}

void Epoch::sleep_beyond(std::uint32_t seen) noexcept {
  if (count() != seen) return;
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (count_.load(std::memory_order_seq_cst) == seen) sleep_while(count_, seen);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace lamella
