#include "runtime/client.h"

#include <unistd.h>

#include <utility>

#include "base/check.h"

namespace lamella {
namespace {

constexpr double seconds_between_looks = 0.05;  // for an interrupt, which a person waits for

}  // namespace

Client::Client(std::shared_ptr<RequestLoop> loop, RequestRules rules)
    : loop_(std::move(loop)), rules_(std::move(rules)), state_(std::make_shared<ClientState>()), owner_(getpid()) {}

Client::~Client() {
  if (!loop_) return;  // moved from
  if (getpid() == owner_) {
    leave();
  } else {
    // After a fork the parent's threads may hold these locks, and wait on these conditions, for ever: they stay.
    static_cast<void>(new (std::nothrow) std::shared_ptr<ClientState>(std::move(state_)));
    static_cast<void>(new (std::nothrow) std::shared_ptr<RequestLoop>(std::move(loop_)));
  }
}

void Client::validate(const std::vector<Request>& requests) const {
  try {
    validate_each("request", requests, [&](const Request& request) { rules_.validate(request); });
  } catch (...) {
    loop_->count_rejected(static_cast<std::int64_t>(requests.size()));
    throw;
  }
}

std::vector<RequestId> Client::submit(std::vector<Request> requests) {
  validate(requests);
  std::vector<std::shared_ptr<RequestRecord>> records;
  records.reserve(requests.size());
  std::vector<RequestId> ids(requests.size());
  for (Request& request : requests)
    records.push_back(
        std::make_shared<RequestRecord>(std::move(request), false, rules_.vocabulary, rules_.retention.windows.size()));
  loop_->submit(records, state_);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = records[i]->id;
  return ids;
}

RequestId Client::submit(Request request) {
  std::vector<Request> one;
  one.push_back(std::move(request));
  return submit(std::move(one)).front();
}

std::vector<Progress> Client::wait(double timeout_s, Hear hear) { return loop_->take_news(*state_, timeout_s, hear); }

void Client::cancel(RequestId id) { loop_->cancel(*state_, id); }

void Client::stop(RequestId id, std::int32_t choice) { loop_->stop(*state_, id, choice); }

void Client::leave() noexcept { loop_->leave(*state_); }

std::size_t Client::open() const { return loop_->open_requests(*state_); }

int Client::event_fd() { return loop_->event_fd(*state_); }

std::vector<float> Client::logits(std::vector<std::int32_t> tokens, const std::function<void()>& interrupt) {
  rules_.validate_tokens(tokens);
  rules_.validate_fits(static_cast<std::int64_t>(tokens.size()), 0);
  Request request{.prompt = std::move(tokens), .sampling = {.max_tokens = 0}};
  const auto record =
      std::make_shared<RequestRecord>(std::move(request), true, rules_.vocabulary, rules_.retention.windows.size());
  Client own(loop_, rules_);  // whatever ends this call cancels the request
  loop_->submit({record}, own.state_);
  while (own.open() > 0) {
    for (const Progress& progress : own.wait(seconds_between_looks)) {
      if (progress.error) throw *progress.error;
      if (progress.reason == FinishReason::cancelled)
        throw Error(ErrorCode::cancelled, "the engine was closed while it computed these logits");
    }
    if (interrupt && own.open() > 0) interrupt();
  }
  return std::move(record->rows);
}

}  // namespace lamella
