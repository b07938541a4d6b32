#include "embed/c_news.h"

#include <memory>
#include <utility>

#include "embed/c_error.h"
#include "embed/c_struct.h"

namespace lamella {
namespace {

lamella_news::Logprobs converted(const std::vector<std::vector<TokenLogprob>>& own) {
  lamella_news::Logprobs result;
  for (const std::vector<TokenLogprob>& token : own) {
    std::vector<lamella_token_logprob>& entries = result.entries.emplace_back();
    for (const TokenLogprob& entry : token)
      entries.push_back({.token = entry.token, .logprob = entry.logprob, .rank = entry.rank});
  }
  for (const std::vector<lamella_token_logprob>& entries : result.entries)
    result.views.push_back({.entries = entries.data(), .count = entries.size()});
  return result;
}

void convert_logprobs(lamella_news& news) {
  if (news.prompt_logprobs.size() == news.items.size()) return;
  std::vector<lamella_news::Logprobs> of_tokens, of_prompts;
  for (const Progress& item : news.items) {
    of_tokens.push_back(converted(item.logprobs));
    of_prompts.push_back(converted(item.prompt_logprobs));
  }
  news.logprobs = std::move(of_tokens);
  news.prompt_logprobs = std::move(of_prompts);
}

std::int32_t c_reason(FinishReason reason) noexcept {
  switch (reason) {
    case FinishReason::running: return LAMELLA_REASON_RUNNING;
    case FinishReason::stop: return LAMELLA_REASON_STOP;
    case FinishReason::length: return LAMELLA_REASON_LENGTH;
    case FinishReason::cancelled: return LAMELLA_REASON_CANCELLED;
    case FinishReason::error: return LAMELLA_REASON_ERROR;
  }
  return LAMELLA_REASON_ERROR;
}

}  // namespace
}  // namespace lamella

extern "C" {

size_t lamella_news_count(const lamella_news* news) { return news == nullptr ? 0 : news->items.size(); }

lamella_code lamella_news_get(lamella_news* news, size_t index, lamella_progress* progress) {
  return lamella::c_guarded([&] {
    using lamella::not_null;
    not_null(news, "news");
    const std::size_t size = lamella::size_of_struct(not_null(progress, "progress"), "lamella_progress");
    if (index >= news->items.size())
      throw lamella::Error(lamella::ErrorCode::invalid_argument,
                           lamella::concat("index is ", index, "; the news have ", news->items.size(), " items"));
    lamella::convert_logprobs(*news);
    const lamella::Progress& own = news->items[index];
    const auto& logprobs = news->logprobs[index].views;
    const auto& prompt_logprobs = news->prompt_logprobs[index].views;
    lamella::given_back({.struct_size = size,
                         .id = own.id,
                         .choice = own.choice,
                         .reason = lamella::c_reason(own.reason),
                         .error = own.error ? lamella::c_code(own.error->code()) : LAMELLA_OK,
                         .error_message = own.error ? own.error->what() : "",
                         .tokens = own.new_tokens.data(),
                         .times_s = own.times_s.data(),
                         .token_count = own.new_tokens.size(),
                         .first_token_s = own.first_token_s,
                         .logprobs = logprobs.empty() ? nullptr : logprobs.data(),
                         .prompt_logprobs = prompt_logprobs.empty() ? nullptr : prompt_logprobs.data(),
                         .prompt_logprobs_count = prompt_logprobs.size()},
                        progress, size);
  });
}

void lamella_news_free(lamella_news* news) { const std::unique_ptr<lamella_news> freed(news); }

}  // extern "C"
