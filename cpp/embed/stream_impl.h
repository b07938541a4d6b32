// What the engine puts into the callers' ends that it hands out.
#pragma once

#include <memory>
#include <utility>

#include "embed/callback_thread.h"
#include "lamella/stream.h"
#include "runtime/client.h"

namespace lamella {

struct Stream::Impl {
  explicit Impl(Client own) : client(std::move(own)) {}

  Client client;  // of one request
  RequestId id = 0;
};

struct Subscription::Impl {
  explicit Impl(std::shared_ptr<CallbackThread> thread) : callbacks(std::move(thread)) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    if (told) callbacks->drop(*told);
  }

  std::shared_ptr<CallbackThread> callbacks;
  std::shared_ptr<CallbackThread::Told> told;  // null before submit() has succeeded
};

}  // namespace lamella
