#include "lamella/stream.h"

#include <utility>

#include "embed/border.h"
#include "embed/stream_impl.h"
#include "embed/timeout.h"

namespace lamella {
namespace {

/// Of a Stream or a Subscription.
template <typename Impl>
Impl& held(const std::unique_ptr<Impl>& impl) {
  if (!impl) throw Error(ErrorCode::invalid_argument, "this end of a request was moved to another one");
  return *impl;
}

}  // namespace

Stream::Stream(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Stream::Stream(Stream&& other) noexcept = default;
Stream& Stream::operator=(Stream&& other) noexcept = default;
Stream::~Stream() = default;

RequestId Stream::id() const noexcept { return impl_ ? impl_->id : 0; }

Result<std::vector<Progress>> Stream::next(Seconds timeout) {
  return guarded([&] {
    Client& client = held(impl_).client;
    std::vector<Progress> news;
    wait_in_turns(timeout, [&](Seconds turn) {
      news = client.wait(turn.count());
      return !news.empty() || client.open() == 0;
    });
    return news;
  });
}

bool Stream::finished() const noexcept { return !impl_ || impl_->client.open() == 0; }

void Stream::cancel() noexcept {
  if (impl_) impl_->client.cancel(impl_->id);
}

void Stream::stop(std::int32_t choice) noexcept {
  if (impl_) impl_->client.stop(impl_->id, choice);
}

Result<int> Stream::event_fd() {
  return guarded([&] { return held(impl_).client.event_fd(); });
}

Subscription::Subscription(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Subscription::Subscription(Subscription&& other) noexcept = default;
Subscription& Subscription::operator=(Subscription&& other) noexcept = default;
Subscription::~Subscription() = default;

RequestId Subscription::id() const noexcept { return impl_ ? impl_->told->id : 0; }

void Subscription::cancel() noexcept {
  if (impl_) impl_->callbacks->cancel(*impl_->told);
}

void Subscription::stop(std::int32_t choice) noexcept {
  if (impl_) impl_->callbacks->stop(*impl_->told, choice);
}

Result<bool> Subscription::wait(Seconds timeout) const {
  return guarded([&] {
    const Impl& impl = held(impl_);
    return impl.callbacks->wait(*impl.told, timeout);
  });
}

}  // namespace lamella
