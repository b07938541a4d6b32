#include "runtime/request_record.h"

#include <unistd.h>

#include "base/check.h"

namespace lamella {

ClientState::~ClientState() {
  if (event_fd >= 0) ::close(event_fd);
}

RequestRecord::RequestRecord(Request asked, bool wants_rows, std::int64_t vocabulary, std::size_t kv_groups)
    : request(std::move(asked)),
      is_counted(!wants_rows),
      news(static_cast<std::size_t>(request.sampling.n)),
      open(request.sampling.n) {
  const SamplingParams& sampling = request.sampling;
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  sequences.reserve(news.size());
  samplers.reserve(news.size());
  for (std::int32_t choice = 0; choice < open; ++choice) {
    Sequence& sequence = sequences.emplace_back(request, choice, kv_groups);
    sequence.record = this;
    sequence.first = choice == 0 ? nullptr : &sequences.front();
    News& own = news[static_cast<std::size_t>(choice)];
    own.tokens.reserve(static_cast<std::size_t>(sampling.max_tokens));
    own.times_s.reserve(own.tokens.capacity());
    if (sampling.logprobs) own.logprobs.reserve(static_cast<std::size_t>(sampling.max_tokens));
    if (!wants_rows) samplers.emplace_back(sampling, request.prompt, vocabulary, static_cast<std::uint32_t>(choice));
  }
  if (wants_rows) {
    sequences.front().scored_end = prompt;
    rows.resize(static_cast<std::size_t>(
        checked_multiply(prompt, vocabulary, "the prompt's logits", ErrorCode::invalid_argument)));
  } else if (sampling.prompt_logprobs) {
    sequences.front().scored_end = prompt - 1;  // the row of a token tells of the next
    prompt_logprobs.resize(request.prompt.size());
  }
}

}  // namespace lamella
