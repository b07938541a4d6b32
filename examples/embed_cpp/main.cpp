// Serves requests from four threads on one engine: embed STORE PROMPT...
//
// STORE is what `lamella pack` made; a PROMPT is token ids, "5,6,7", as a tokenizer makes them of text. Without prompts it
// takes eight of its own. Prints each request's tokens in the order of the prompts, and the engine's figures at the end.
#include <lamella/engine.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t worker_threads = 4;

/// The ids of "5,6,7"; nothing where there is anything else.
std::optional<std::vector<std::int32_t>> parse_ids(std::string_view text) {
  std::vector<std::int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    const auto [after, error] = std::from_chars(at, end, ids.emplace_back());
    if (error != std::errc() || (after != end && *after != ',')) return std::nullopt;
    if (after == end) return ids;
    at = after + 1;
  }
}

/// Eight prompts within any vocabulary of at least 64 ids.
std::vector<std::vector<std::int32_t>> own_prompts() {
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::int32_t i = 0; i < 8; ++i) prompts.push_back({i + 1, 2 * i + 3, 5 * i + 7});
  return prompts;
}

/// What came of one request.
struct Answer {
  std::vector<std::int32_t> tokens;
  std::string end;  // why it ended, or what went wrong
  bool failed = false;
};

Answer failure(const lamella::Error& error) {
  return {.tokens = {}, .end = std::string(to_string(error.code())) + ": " + error.what(), .failed = true};
}

/// Hears one request to its end. Its tokens come one by one as they are made: a service would pass them on here.
Answer hear(lamella::Stream& stream) {
  Answer answer;
  while (!stream.finished()) {
    const lamella::Result<std::vector<lamella::Progress>> news = stream.next();
    if (!news) return failure(news.error());
    for (const lamella::Progress& progress : news.value()) {
      answer.tokens.insert(answer.tokens.end(), progress.new_tokens.begin(), progress.new_tokens.end());
      if (progress.error) return failure(*progress.error);
      answer.end = to_string(progress.reason);
    }
  }
  return answer;
}

/// One thread's share: prompts first, first + worker_threads, ... All are submitted before the first is heard, so that the
/// engine works on the requests of all threads together.
void serve(lamella::Engine& engine, const std::vector<std::vector<std::int32_t>>& prompts, std::size_t first,
           std::vector<Answer>& answers) {
  std::vector<lamella::Result<lamella::Stream>> streams;
  for (std::size_t i = first; i < prompts.size(); i += worker_threads)
    streams.push_back(engine.submit({.prompt = prompts[i], .sampling = {.max_tokens = 16}}));
  std::size_t i = first;
  for (lamella::Result<lamella::Stream>& stream : streams) {
    answers[i] = stream ? hear(stream.value()) : failure(stream.error());
    i += worker_threads;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: embed STORE [IDS...]\n", stderr);
    return 2;
  }
  std::vector<std::vector<std::int32_t>> prompts;
  for (int i = 2; i < argc; ++i) {
    const std::optional<std::vector<std::int32_t>> ids = parse_ids(argv[i]);
    if (!ids) {
      std::fprintf(stderr, "embed: \"%s\" is no list of token ids like 5,6,7\n", argv[i]);
      return 2;
    }
    prompts.push_back(*ids);
  }
  if (prompts.empty()) prompts = own_prompts();

  lamella::Result<lamella::Engine> opened = lamella::Engine::open(argv[1], {.max_num_seqs = 8});
  if (!opened) {
    std::fprintf(stderr, "embed: %s\n", opened.error().what());
    return 1;
  }
  lamella::Engine& engine = opened.value();

  std::vector<Answer> answers(prompts.size());
  std::vector<std::thread> workers;
  for (std::size_t first = 0; first < worker_threads; ++first)
    workers.emplace_back([&, first] { serve(engine, prompts, first, answers); });
  for (std::thread& worker : workers) worker.join();

  bool failed = false;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    std::printf("request %zu:", i);
    for (const std::int32_t token : answers[i].tokens) std::printf(" %d", token);
    std::printf(" (%s)\n", answers[i].end.c_str());
    failed = failed || answers[i].failed;
  }
  const lamella::Statistics stats = engine.stats();
  std::printf("%lld of %lld requests finished\n", static_cast<long long>(stats.finished),
              static_cast<long long>(stats.received));
  return failed ? 1 : 0;
}
