// A caller's ends of a request: a Stream is asked for its news, a Subscription stands for a callback that is told them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "lamella/error.h"
#include "lamella/request.h"

namespace lamella {

/// How long to wait. Infinity is for ever; zero, anything below it and NaN do not wait.
using Seconds = std::chrono::duration<double>;
inline constexpr Seconds forever{std::numeric_limits<double>::infinity()};

/// One request, from its submission to its end. Move-only and thread-safe: one thread may wait while another cancels.
/// Each piece of news goes to one caller only. When it goes, the request is cancelled. It may outlive the engine, whose
/// end it sees as the request's: `cancelled`. One that was moved from may be assigned to or destroyed; asked for
/// anything else it answers with invalid_argument, or as a request that is over.
class Stream {
 public:
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  /// The engine's number for the request: ascending, from 1.
  [[nodiscard]] RequestId id() const noexcept;
  /// What is new: one Progress for each choice (SamplingParams::n) that has news. Waits until there is something; the
  /// list is empty when `timeout` is over first, and when the request is over. A choice's last Progress has a reason
  /// other than `running`; a request that failed says so there, in `error`. Errors: out_of_memory, which loses no news.
  [[nodiscard]] Result<std::vector<Progress>> next(Seconds timeout = forever);
  /// Whether the end of every choice was told by next().
  [[nodiscard]] bool finished() const noexcept;
  /// Ends the request before its next step; its choices' last news say `cancelled`. Does nothing once it is over.
  void cancel() noexcept;
  /// Ends one choice as finished, with the reason `stop`, before its next step: what it has said is enough. Does
  /// nothing for choices that are over or unknown.
  void stop(std::int32_t choice = 0) noexcept;
  /// A descriptor that poll() and epoll see as readable while next() has something to tell; it stays the stream's,
  /// which closes it. Errors: io_error.
  [[nodiscard]] Result<int> event_fd();

 private:
  friend class Engine;
  struct Impl;
  explicit Stream(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

/// Is told what is new about one choice of a request, in order, to the end.
///
/// All callbacks of an engine run on one thread that is the engine's own and is not the one that computes: a slow
/// callback delays other callbacks and nothing else, and one may submit, cancel, drop subscriptions and take
/// statistics. What it throws ends its request and no other: the request is cancelled, the callback is not called
/// again, and Subscription::wait() returns the error `cancelled`, whose message has the exception's.
using OnProgress = std::function<void(const Progress&)>;

/// One request whose news go to a callback. Move-only and thread-safe. When it goes, the request is cancelled and the
/// callback is not called again: once the destructor has returned, what the callback refers to may go too. (Inside the
/// callback itself it returns at once, and that call is the last.) It may outlive the engine, which tells every
/// callback its request's end before it goes.
class Subscription {
 public:
  Subscription(Subscription&& other) noexcept;
  Subscription& operator=(Subscription&& other) noexcept;
  ~Subscription();

  /// The engine's number for the request: ascending, from 1.
  [[nodiscard]] RequestId id() const noexcept;
  /// Ends the request before its next step; the callback is told `cancelled`. Does nothing once it is over.
  void cancel() noexcept;
  /// Ends one choice as finished, as Stream::stop().
  void stop(std::int32_t choice = 0) noexcept;
  /// Waits until the callback was told the end of every choice and is gone, for `timeout` at most: true then, false
  /// where the request goes on. Errors: what the request failed with; cancelled, where the callback threw;
  /// invalid_argument inside a callback of the same engine, whose thread would wait for itself, unless the request is
  /// over already.
  [[nodiscard]] Result<bool> wait(Seconds timeout = forever) const;

 private:
  friend class Engine;
  struct Impl;
  explicit Subscription(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lamella
