// A caller's end of the engine's queue: `generate`, a stream, an asyncio task, a C++ service.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "lamella/request.h"
#include "runtime/request_loop.h"
#include "runtime/request_rules.h"

namespace lamella {

/// Submits requests and hears of them. Thread-safe; many may share an engine. When it goes, its requests are cancelled.
/// It may outlive the engine, whose end it sees as the end of its requests.
class Client {
 public:
  /// Errors: std::bad_alloc.
  Client(std::shared_ptr<RequestLoop> loop, RequestRules rules);
  ~Client();
  Client(Client&& other) noexcept = default;
  Client& operator=(Client&& other) = delete;

  /// Checks the requests, all of them before the first is queued, and queues them. Returns their ids, in order. Errors:
  /// those of RequestRules; where there are several requests the message names the index of the first that does not
  /// pass, and all count as rejected. invalid_argument once the engine is closed, engine_dead, std::bad_alloc: nothing
  /// is queued then.
  std::vector<RequestId> submit(std::vector<Request> requests);
  /// What submit() checks, and counts as rejected.
  void validate(const std::vector<Request>& requests) const;
  RequestId submit(Request request);
  /// What is new, after at most `timeout_s` seconds; empty then, and where no request is open. A request's end is told
  /// once. With Hear::ends it waits until a choice ends, and what has come until then, or until the time is over, comes
  /// together. Errors: std::bad_alloc, which loses nothing.
  [[nodiscard]] std::vector<Progress> wait(double timeout_s, Hear hear = Hear::everything);
  [[nodiscard]] std::vector<Progress> poll() { return wait(0.0); }
  /// Ends the request before its next step; ids that are unknown or have ended are ignored.
  void cancel(RequestId id);
  /// The choice ends as finished, with the reason `stop`, before its next step: what it has said is enough, a stop
  /// string for one. Unknown ones are ignored.
  void stop(RequestId id, std::int32_t choice = 0);
  /// Cancels all and forgets them.
  void leave() noexcept;
  /// Requests whose end was not told yet.
  [[nodiscard]] std::size_t open() const;
  /// The logits of all positions of `tokens`, [tokens][vocabulary], computed among everybody's requests. `interrupt` is
  /// called now and then while it waits; what it throws ends the request. Errors: those of RequestRules and of a step.
  [[nodiscard]] std::vector<float> logits(std::vector<std::int32_t> tokens, const std::function<void()>& interrupt);
  /// A descriptor that polls as readable while there is news; it stays the client's. Errors: io_error.
  [[nodiscard]] int event_fd();

 private:
  std::shared_ptr<RequestLoop> loop_;
  RequestRules rules_;
  std::shared_ptr<ClientState> state_;
  pid_t owner_;  // in a forked child the loop's thread is missing, and its locks may be held for ever
};

}  // namespace lamella
