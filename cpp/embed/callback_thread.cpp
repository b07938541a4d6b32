#include "embed/callback_thread.h"

#include <unistd.h>

#include <chrono>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "embed/border.h"
#include "embed/timeout.h"

namespace lamella {
namespace {

constexpr double seconds_between_looks = 3600.0;      // news end a wait at once
constexpr std::chrono::milliseconds pause_for_memory(10);  // before the next attempt to take news that found none

/// What the callback's request ends with where the exception that is being handled came out of the callback.
Error callback_error() noexcept {
  try {
    return {ErrorCode::cancelled,
            concat("the request's callback threw, so the request was cancelled: ", handled_text())};
  } catch (...) {
    return border_error();
  }
}

}  // namespace

CallbackThread::CallbackThread(Client client) : client_(std::move(client)), owner_(getpid()) {}

std::shared_ptr<CallbackThread::Told> CallbackThread::submit(Request request, OnProgress callback) {
  if (!callback) throw Error(ErrorCode::invalid_argument, "on_progress is empty; expected a function to call");
  const auto told = std::make_shared<Told>();
  told->callback = std::move(callback);
  told->open = request.sampling.n;
  std::map<RequestId, std::shared_ptr<Told>> one;  // its node, so that nothing fails once the request is queued
  one.emplace(0, told);
  auto node = one.extract(one.begin());

  const std::lock_guard lock(guard_);  // news of the request wait until it is listed
  if (!thread_.joinable() && !closing_) {
    try {
      thread_ = std::thread([self = shared_from_this()] { self->run(); });
    } catch (const std::system_error& error) {
      throw Error(ErrorCode::out_of_memory,
                  concat("the operating system gave no thread for callbacks: ", error.what()));
    }
  }
  told->id = node.key() = client_.submit(std::move(request));
  open_.insert(std::move(node));
  changed_.notify_all();
  return told;
}

bool CallbackThread::wait(const Told& told, Seconds timeout) {
  std::unique_lock lock(guard_);
  if (!told.over && timeout > Seconds::zero() && runner_ == std::this_thread::get_id())
    throw Error(ErrorCode::invalid_argument, "wait() was called inside a callback, whose thread it would wait for");
  const bool over =
      wait_in_turns(timeout, [&](Seconds turn) { return changed_.wait_for(lock, turn, [&] { return told.over; }); });
  if (over && told.error) throw Error(*told.error);
  return over;
}

void CallbackThread::drop(Told& told) noexcept {
  if (getpid() != owner_) return;  // its locks may be held for ever
  OnProgress callback;             // goes outside the lock: what it holds may call us
  std::unique_lock lock(guard_);
  told.wanted = false;
  if (!told.over) client_.cancel(told.id);
  if (runner_ != std::this_thread::get_id()) changed_.wait(lock, [&] { return !told.being_told; });
  if (!told.being_told) callback.swap(told.callback);
  lock.unlock();
}

bool CallbackThread::is_this_thread() const noexcept {
  const std::lock_guard lock(guard_);
  return runner_ == std::this_thread::get_id();
}

void CallbackThread::finish() noexcept {
  const std::lock_guard one_at_a_time(finishing_);
  {
    const std::lock_guard lock(guard_);
    closing_ = true;
  }
  changed_.notify_all();
  if (!thread_.joinable()) return;
  if (is_this_thread()) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

// ---- the thread -----------------------------------------------------------------------------------------------------

void CallbackThread::run() noexcept {
  std::unique_lock lock(guard_);
  runner_ = std::this_thread::get_id();
  for (;;) {
    changed_.wait(lock, [&] { return closing_ || !open_.empty(); });
    if (open_.empty()) return;
    lock.unlock();
    hear();
    lock.lock();
  }
}

void CallbackThread::hear() {
  std::vector<Progress> news;
  try {
    news = client_.wait(seconds_between_looks);
  } catch (const std::bad_alloc&) {  // which loses nothing
    std::this_thread::sleep_for(pause_for_memory);
  }
  for (const Progress& progress : news) tell(progress);
}

void CallbackThread::tell(const Progress& progress) noexcept {
  std::shared_ptr<Told> told;
  bool wanted = false;
  {
    const std::lock_guard lock(guard_);
    told = open_.at(progress.id);
    told->being_told = true;
    wanted = told->wanted;
  }
  std::optional<Error> failure;
  if (wanted) {
    try {
      told->callback(progress);
    } catch (...) {
      failure = callback_error();
    }
  }
  bool over = false;
  {
    OnProgress done;  // goes outside the lock, since what it holds may call us, and before drop() may return
    const std::lock_guard lock(guard_);
    if (failure) {
      told->wanted = false;
      told->error = std::move(failure);
      client_.cancel(progress.id);
    } else if (!told->error) {
      told->error = progress.error;
    }
    over = progress.reason != FinishReason::running && --told->open == 0;
    if (over || !told->wanted) done.swap(told->callback);
  }
  {
    const std::lock_guard lock(guard_);
    told->being_told = false;
    told->over = over;
    if (over) open_.erase(progress.id);
  }
  changed_.notify_all();
}

}  // namespace lamella
