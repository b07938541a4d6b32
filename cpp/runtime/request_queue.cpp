// The callers' side of the engine's loop: one queue, under one lock, that is held for moments.
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "runtime/request_loop.h"

namespace lamella {
namespace {

void lower_event(int event_fd) noexcept {
  std::uint64_t count = 0;
  if (event_fd >= 0) static_cast<void>(!::read(event_fd, &count, sizeof count));
}

}  // namespace

void RequestLoop::refuse_if_closed() const {
  if (died_of_) throw Error(ErrorCode::engine_dead, concat("the engine is dead: ", died_of_->what()));
  if (closing_) throw Error(ErrorCode::invalid_argument, "the engine is closed");
}

void RequestLoop::submit(const std::vector<std::shared_ptr<RequestRecord>>& records,
                         const std::shared_ptr<ClientState>& client) {
  {
    const std::lock_guard lock(queue_);
    refuse_if_closed();
    client->with_news.reserve(client->requests.size() + records.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
      try {
        client->requests.emplace(next_id_ + i, records[i]);
      } catch (...) {
        while (i-- > 0) client->requests.erase(next_id_ + i);
        throw;
      }
    }
    // From here on nothing fails.
    const double now_s = options_.clock();
    for (const std::shared_ptr<RequestRecord>& record : records) {
      record->id = next_id_++;
      record->submitted_s = now_s;
      record->client = client;
      for (Sequence& sequence : record->sequences) sequence.arrival = record->id;
      (first_submitted_ ? last_submitted_->next : first_submitted_) = record;
      last_submitted_ = record.get();
      requests_.received += record->is_counted ? 1 : 0;
    }
  }
  commands_.notify_one();
}

void RequestLoop::count_rejected(std::int64_t requests) {
  const std::lock_guard lock(queue_);
  requests_.received += requests;
  requests_.rejected += requests;
}

void RequestLoop::list_to_end(const std::shared_ptr<RequestRecord>& record) noexcept {
  if (record->to_end || record->open == 0) return;
  record->to_end = true;
  record->next_to_end = std::exchange(first_to_end_, record);
}

void RequestLoop::cancel(ClientState& client, RequestId id) {
  {
    const std::lock_guard lock(queue_);
    const auto found = client.requests.find(id);
    if (found == client.requests.end()) return;
    found->second->cancel_requested = true;
    list_to_end(found->second);
  }
  commands_.notify_one();
}

void RequestLoop::stop(ClientState& client, RequestId id, std::int32_t choice) {
  {
    const std::lock_guard lock(queue_);
    const auto found = client.requests.find(id);
    if (found == client.requests.end() || choice < 0 || choice >= found->second->request.sampling.n) return;
    found->second->news[static_cast<std::size_t>(choice)].stop_requested = true;
    list_to_end(found->second);
  }
  commands_.notify_one();
}

void RequestLoop::leave(ClientState& client) noexcept {
  std::map<RequestId, std::shared_ptr<RequestRecord>> left;  // freed outside the lock
  {
    const std::lock_guard lock(queue_);
    left.swap(client.requests);
    client.with_news.clear();
    client.has_ends = false;
    for (const auto& [id, record] : left) {
      record->client.reset();
      record->cancel_requested = true;
      list_to_end(record);
    }
  }
  commands_.notify_one();
}

std::vector<Progress> RequestLoop::take_news(ClientState& client, double timeout_s, Hear hear) {
  std::vector<Progress> news;
  std::unique_lock lock(queue_);
  const bool everything = hear == Hear::everything;
  const auto ready = [&] {
    return client.requests.empty() || (everything ? !client.with_news.empty() : client.has_ends);
  };
  if (timeout_s > 0.0 && !ready()) {
    client.hear_everything += everything ? 1 : 0;
    client.news.wait_for(lock, std::chrono::duration<double>(timeout_s), ready);
    client.hear_everything -= everything ? 1 : 0;
  }
  for (const RequestRecord* record : client.with_news) {
    for (std::size_t choice = 0; choice < record->news.size(); ++choice) {
      const News& own = record->news[choice];
      if (own.fresh)
        news.push_back({.id = record->id,
                        .choice = static_cast<std::int32_t>(choice),
                        .new_tokens = own.tokens,
                        .times_s = own.times_s,
                        .logprobs = own.logprobs,
                        .prompt_logprobs = choice == 0 && !record->prompt_told
                                               ? record->prompt_logprobs
                                               : std::vector<std::vector<TokenLogprob>>(),
                        .reason = own.reason,
                        .error = own.error,
                        .first_token_s = own.first_token_s});
    }
  }
  // It is the caller's now: from here on nothing fails.
  for (RequestRecord* record : client.with_news) {
    record->prompt_told = record->prompt_told || record->news.front().fresh;
    for (News& own : record->news) {
      own.tokens.clear();
      own.times_s.clear();
      own.logprobs.clear();
      own.fresh = false;
    }
    record->listed = false;
    if (record->open == 0) client.requests.erase(record->id);
  }
  client.with_news.clear();
  client.has_ends = false;
  lower_event(client.event_fd);
  return news;
}

std::size_t RequestLoop::open_requests(const ClientState& client) const {
  const std::lock_guard lock(queue_);
  return client.requests.size();
}

int RequestLoop::event_fd(ClientState& client) {
  const std::lock_guard lock(queue_);
  if (client.event_fd < 0) {
    client.event_fd = ::eventfd(client.with_news.empty() ? 0 : 1, EFD_NONBLOCK | EFD_CLOEXEC);
    if (client.event_fd < 0)
      throw Error(ErrorCode::io_error, concat("no eventfd for the request's news: ", std::strerror(errno)));
  }
  return client.event_fd;
}

void RequestLoop::call(const std::function<void()>& work) {
  Call call{.work = &work};
  std::unique_lock lock(queue_);
  refuse_if_closed();
  (first_call_ != nullptr ? last_call_->next : first_call_) = &call;
  last_call_ = &call;
  commands_.notify_one();
  calls_done_.wait(lock, [&] { return call.done; });
  lock.unlock();
  if (call.failure) std::rethrow_exception(call.failure);
}

RequestCounts RequestLoop::request_counts() const {
  const std::lock_guard lock(queue_);
  RequestCounts counts = requests_;
  counts.running = counts.received - counts.finished - counts.cancelled - counts.rejected - counts.failed;
  return counts;
}

LoopCounts RequestLoop::loop_counts() const {
  const std::lock_guard lock(queue_);
  return loop_counts_;
}

}  // namespace lamella
