#include "base/thread_team.h"

#include <unistd.h>

#include "base/check.h"

namespace lamella {

void Barrier::wait(int members) noexcept {
  if (members == 1) return;
  const std::uint32_t meeting = meetings_.count();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
    arrived_.store(0, std::memory_order_relaxed);
    meetings_.advance();
  } else {
    meetings_.wait_beyond(meeting, patience_);
  }
}

ThreadTeam::ThreadTeam(int size) : owner_(getpid()) {
  check(size >= 1, "a team of ", size, " threads");
  try {
    rounds_ = std::make_unique<Epoch[]>(static_cast<std::size_t>(size));
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
  for (int index = 1; index < size(); ++index) rounds_[static_cast<std::size_t>(index)].advance();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::run(int members, const std::function<void(int)>& body) {
  check(members >= 1 && members <= size(), members, " members of a team of ", size());
  members_ = members;
  body_ = &body;
  failure_ = nullptr;
  for (int index = 1; index < members; ++index) rounds_[static_cast<std::size_t>(index)].advance();
  call(0);
  finished_.wait(members);
  if (failure_) std::rethrow_exception(failure_);
}

void ThreadTeam::work(int index) {
  for (std::uint32_t done = 0;; ++done) {
    rounds_[static_cast<std::size_t>(index)].wait_beyond(done, between_, between_steps);
    if (stopping_.load(std::memory_order_relaxed)) return;
    call(index);
    finished_.wait(members_);
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
