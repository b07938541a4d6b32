#include "base/epoch.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>

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

/// The system looks at `word` once more before it puts the thread to sleep. It may also return for no reason; with `most`,
/// after that time.
void sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t value, const timespec* most) noexcept {
  static_cast<void>(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, most, nullptr, 0));
}

timespec timespec_of(std::chrono::nanoseconds time) noexcept {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  return {.tv_sec = static_cast<time_t>(seconds.count()), .tv_nsec = static_cast<long>((time - seconds).count())};
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
  if (!poll_beyond(seen, patience, length)) sleep_beyond(seen, std::nullopt);
}

bool Epoch::wait_beyond_for(std::uint32_t seen, Patience& patience, std::chrono::nanoseconds limit) noexcept {
  return poll_beyond(seen, patience, std::min(limit, Patience::length)) || sleep_beyond(seen, Clock::now() + limit);
}

bool Epoch::poll_beyond(std::uint32_t seen, Patience& patience, std::chrono::nanoseconds length) noexcept {
  constexpr int polls = 16;  // between looks at the clock, each of which takes as long as two or three polls
  if (!patience.polls()) return false;
  Clock::time_point end{};
  do {
    for (int i = 0; i < polls; ++i) {
      if (count() != seen) {
        patience.was_rewarded();
        return true;
      }
      relax();
    }
    if (end == Clock::time_point{}) end = Clock::now() + length;
  } while (Clock::now() < end);
  patience.was_wasted();
  return false;
}

bool Epoch::sleep_beyond(std::uint32_t seen, std::optional<Clock::time_point> end) noexcept {
  if (count() != seen) return true;
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (count_.load(std::memory_order_seq_cst) == seen) {
    timespec most{};
    if (end) {
      const auto left = *end - Clock::now();
      if (left <= std::chrono::nanoseconds(0)) break;
      most = timespec_of(left);
    }
    sleep_while(count_, seen, end ? &most : nullptr);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
  return count() != seen;
}

}  // namespace lamella
