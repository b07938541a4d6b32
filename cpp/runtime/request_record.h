// What the engine's loop and a caller know together of one request.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "lamella/request.h"
#include "runtime/sampler.h"
#include "runtime/sequence.h"

namespace lamella {

struct RequestRecord;

/// What a waiting caller wants to be woken for: every token, or only the ends of choices.
enum class Hear : std::uint8_t { everything, ends };

/// A caller's end: where news of its requests arrive. Guarded by the queue's mutex.
struct ClientState {
  ClientState() = default;
  ~ClientState();
  ClientState(const ClientState&) = delete;
  ClientState& operator=(const ClientState&) = delete;

  std::condition_variable news;
  int hear_everything = 0;  // threads that wait for any news
  bool has_ends = false;  // among the news, the end of a choice
  std::map<RequestId, std::shared_ptr<RequestRecord>> requests;  // those that have not been heard of to the end
  std::vector<RequestRecord*> with_news;  // has room for all of them: the loop allocates nothing
  int event_fd = -1;  // readable while there is news; made when first asked for
};

/// What is new about one choice of a request.
struct News {
  std::vector<std::int32_t> tokens;  // has room for all that the choice can generate, as have the next two
  std::vector<double> times_s;
  std::vector<std::vector<TokenLogprob>> logprobs;
  FinishReason reason = FinishReason::running;
  std::optional<Error> error;
  double first_token_s = 0.0;
  bool fresh = false;
  bool stop_requested = false;  // its caller has all that it wants
};

/// A request in the engine. Made whole on the thread that submits, so that nothing which comes later needs memory.
struct RequestRecord {
  /// `wants_rows`: the request is for the prompt's logits, generates nothing and is not counted. Errors: std::bad_alloc.
  RequestRecord(Request asked, bool wants_rows, std::int64_t vocabulary, std::size_t kv_groups = 1);

  const Request request;
  const bool is_counted;
  RequestId id = 0;
  double submitted_s = 0.0;
  std::vector<Sequence> sequences;  // the loop's
  std::vector<Sampler> samplers;  // of each sequence; none where the request wants rows
  // Written by the loop's steps, the caller's once choice 0 has news:
  std::vector<float> rows;  // [prompt][vocabulary]
  std::vector<std::vector<TokenLogprob>> prompt_logprobs;  // [prompt]

  // Guarded by the queue's mutex:
  std::shared_ptr<ClientState> client;  // null once the caller has left
  std::vector<News> news;  // one a choice
  std::int32_t open;  // choices that have not ended
  bool cancel_requested = false;
  bool listed = false;  // in client->with_news
  bool prompt_told = false;  // prompt_logprobs are with the caller
  bool to_end = false;  // in the list of those that a caller has asked to end, wholly or in part
  std::shared_ptr<RequestRecord> next_to_end;
  std::shared_ptr<RequestRecord> next;  // among those submitted, and later among those that have ended

  // The loop's, while it works on the request:
  std::shared_ptr<RequestRecord> self;
  RequestRecord *live_before = nullptr, *live_after = nullptr;
};

}  // namespace lamella
