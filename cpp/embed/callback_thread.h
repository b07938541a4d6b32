// The thread that runs an engine's callbacks: a client of the engine's queue like any other.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "lamella/stream.h"
#include "runtime/client.h"

namespace lamella {

/// Hears of all requests that have a callback and calls it. It keeps itself alive while its thread runs.
class CallbackThread : public std::enable_shared_from_this<CallbackThread> {
 public:
  /// A request and whom to tell of it. Guarded by the thread's mutex, but for the id.
  struct Told {
    RequestId id = 0;
    OnProgress callback;
    std::int32_t open = 0;  // choices whose end was not told
    bool wanted = true;     // false once its caller has left, or the callback has thrown
    bool being_told = false;
    bool over = false;
    std::optional<Error> error = {};
  };

  explicit CallbackThread(Client client);

  /// Queues a request and tells the callback of it from now on; the first call starts the thread. Errors: as
  /// Client::submit(); invalid_argument for an empty callback; out_of_memory where there is no thread. They queue
  /// nothing.
  [[nodiscard]] std::shared_ptr<Told> submit(Request request, OnProgress callback);
  void cancel(const Told& told) { client_.cancel(told.id); }
  void stop(const Told& told, std::int32_t choice) { client_.stop(told.id, choice); }
  /// See Subscription::wait().
  [[nodiscard]] bool wait(const Told& told, Seconds timeout);
  /// Cancels, and lets the callback go: it does not run any more once this returns, but on the thread itself.
  void drop(Told& told) noexcept;
  [[nodiscard]] bool is_this_thread() const noexcept;
  /// Waits until every callback was told its request's end, and ends the thread; for an engine whose queue is closed.
  /// On the thread itself it does not wait: the thread ends after the call that it is in and the news that remain.
  void finish() noexcept;

 private:
  void run() noexcept;
  void hear();
  void tell(const Progress& progress) noexcept;

  Client client_;
  const pid_t owner_;  // a forked child has no such thread
  mutable std::mutex guard_;  // taken before the queue's
  std::condition_variable changed_;
  std::map<RequestId, std::shared_ptr<Told>> open_;
  bool closing_ = false;
  std::thread::id runner_;
  std::mutex finishing_;  // one finish() at a time; taken first
  std::thread thread_;
};

}  // namespace lamella
