#include "base/thread_team.h"

#include <unistd.h>

#include "base/check.h"

namespace lamella {
namespace {

/// About 20 to 40 microseconds of polling on today's processors: longer than the uneven ends of an op, far shorter than
/// a scheduler's time slice.
constexpr int spins_before_sleep = 1000;

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void Barrier::wait() {
  if (members_ == 1) return;
  const std::uint32_t generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    generation_.notify_all();
    return;
  }
  for (int i = 0; i < spins_before_sleep; ++i) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
    relax();
  }
  generation_.wait(generation, std::memory_order_acquire);
}

ThreadTeam::ThreadTeam(int size) : barrier_(size), finished_(size), owner_(getpid()) {
  check(size >= 1, "a team of ", size, " threads");
  try {
    workers_.reserve(static_cast<std::size_t>(size - 1));
    for (int index = 1; index < size; ++index) workers_.emplace_back([this, index] { work(index); });
  } catch (const std::exception& error) {  // of threads that the system refuses, and of memory for one more
    stop();
    throw Error(ErrorCode::out_of_memory,
                concat("the operating system gave ", workers_.size(), " threads beside the caller, not ", size - 1,
                       " (", error.what(), "); ask for fewer threads"));
  }
}

ThreadTeam::~ThreadTeam() {
  if (getpid() != owner_) {  // after a fork: the threads are the parent's, so there is nothing to wait for
    for (std::thread& worker : workers_) worker.detach();
    return;
  }
  stop();
}

void ThreadTeam::stop() {
  stopping_.store(true, std::memory_order_relaxed);
  start_round();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::start_round() {
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
}

void ThreadTeam::run(const std::function<void(int)>& body) {
  body_ = &body;
  failure_ = nullptr;
  start_round();
  call(0);
  finished_.wait();
  if (failure_) std::rethrow_exception(failure_);
}

void ThreadTeam::work(int index) {
  for (std::uint32_t done = 0;; ++done) {
    round_.wait(done, std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    call(index);
    finished_.wait();
  }
}

void ThreadTeam::call(int index) noexcept {
  try {
    (*body_)(index);
  } catch (...) {
    const std::lock_guard lock(failing_);
    if (!failure_) failure_ = std::current_exception();
  }
}

}  // namespace lamella
