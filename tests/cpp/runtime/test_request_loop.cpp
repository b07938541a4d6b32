// Random scripts of operations on the engine's loop, on a simulated clock and without its thread: whatever happens, a
// request's tokens are those that it has alone, every request ends in exactly one way, and nothing is left over.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "content_executor.h"
#include "runtime/client.h"
#include "seed.h"

namespace lamella::testing {
namespace {

/// A request's end by itself, from the definition of the next token.
struct Alone {
  std::vector<std::int32_t> tokens;
  FinishReason reason = FinishReason::length;
};

Alone alone(const Request& request, const ContentExecutor::Windows& windows) {
  Alone result;
  std::vector<std::int32_t> known = request.prompt;
  while (static_cast<std::int64_t>(result.tokens.size()) < request.sampling.max_tokens) {
    const std::int32_t next = ContentExecutor::next_token(known, windows);
    if (next < 0) {
      result.reason = FinishReason::error;
      return result;
    }
    if (next == ContentExecutor::stop_token && !request.sampling.stop_token_ids.empty()) {
      result.reason = FinishReason::stop;
      return result;
    }
    known.push_back(next);
    result.tokens.push_back(next);
  }
  return result;
}

/// The most blocks that so many tokens in a row touch, wherever they begin.
std::int64_t most_touched(std::int64_t tokens) {
  std::int64_t most = 0;
  for (std::int64_t begin = 0; begin < kv_block_tokens; ++begin)
    most = std::max(most, (begin + tokens - 1) / kv_block_tokens + 1);
  return most;
}

struct Heard {
  Request request;
  std::vector<std::vector<std::int32_t>> tokens;  // by choice
  std::vector<FinishReason> reasons;
  std::size_t client = 0;
  bool cancelled = false;  // or its client left, or the engine was closed
  std::vector<bool> stopped;  // choices that their caller had enough of
};

/// One script: a few clients, a small cache, and a step failing now and then.
class Script {
 public:
  Script(std::uint64_t seed, ThreadTeam& team) : random_(seed), team_(team) {
    // One KV group of all layers, or up to four with windows, the longest retention first.
    if (draw(0, 1) == 0) {
      windows_ = {draw(0, 1) == 0 ? 0 : static_cast<std::int32_t>(draw(1, 70))};
      for (std::int64_t i = draw(0, 3); i > 0; --i)
        windows_.push_back(static_cast<std::int32_t>(draw(1, windows_.back() == 0 ? 70 : windows_.back())));
    }
    steps_in_flight_ = static_cast<int>(draw(1, 3));
    blocks_ = draw(6, 24) * static_cast<std::int64_t>(windows_.size());
    limits_ = {.max_num_seqs = draw(1, 6),
               .max_num_batched_tokens = draw(6, 40),
               .max_rows = 6,
               .max_blocks_per_sequence = 8,
               .retention = {.windows = windows_},
               .reuse_prefixes = draw(0, 3) > 0};
    limits_.retention.tokens_in_flight = limits_.max_num_batched_tokens * steps_in_flight_;
  }

  void run() {
    ContentExecutor executor(blocks_, windows_);
    KvBlockPool pool(blocks_);
    double now_s = 0.0;
    const RequestRules rules{.vocabulary = ContentExecutor::vocabulary,
                             .max_model_len = 1000,
                             .kv_blocks = blocks_,
                             .retention = limits_.retention};
    const auto loop =
        std::make_shared<RequestLoop>(LoopOptions{.limits = limits_,
                                                  .vocabulary = ContentExecutor::vocabulary,
                                                  .steps_in_flight = steps_in_flight_,
                                                  .clock = [&] { return now_s += 0.001; }},
                                      std::vector<StageExecutors>{{.logits = &executor}}, team_, pool,
                                      [&](std::span<const std::int32_t> blocks) { executor.scrub(blocks); });
    for (std::size_t i = 0; i < 3; ++i) clients_.push_back(std::make_unique<Client>(loop, rules));

    bool closed = false;
    for (std::int64_t turn = 0, turns = draw(5, 60); turn < turns; ++turn) {
      operate(executor);
      for (std::int64_t i = draw(0, 2); i > 0; --i) static_cast<void>(loop->iterate());
      listen();
      verify_counts(*loop);
    }
    if (draw(0, 4) == 0) {
      loop->close();
      closed = true;
      for (auto& [id, heard] : heard_) heard.cancelled = true;
    }
    for (int i = 0; !closed && loop->iterate(); ++i) {
      ASSERT_LT(i, 20000) << "no end";
      listen();
      verify_counts(*loop);
    }
    listen();
    verify_ends(closed);
    EXPECT_EQ(pool.used(), 0);
    EXPECT_EQ(loop->request_counts().running, 0);
    preempted += loop->loop_counts().preemptions;
    reused += loop->loop_counts().reused_tokens;
    verify_counts(*loop);
    clients_.clear();
    loop->close();
    EXPECT_EQ(loop.use_count(), 1);
  }

  static inline std::int64_t preempted = 0, reused = 0, failed = 0, cancelled_midway = 0, stopped_midway = 0;

 private:
  std::int64_t draw(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(high - low + 1));
  }

  Request any_request() {
    // Prompts begin with one of three long runs, so that many share blocks; most leave it somewhere.
    std::vector<std::int32_t> prompt;
    const std::int64_t begin = draw(0, 2), same = draw(0, 50), own = draw(1, 20);
    for (std::int64_t i = 0; i < same; ++i) prompt.push_back(static_cast<std::int32_t>((i * (begin + 2) + begin) % 5));
    for (std::int64_t i = 0; i < own; ++i) prompt.push_back(static_cast<std::int32_t>(draw(0, 5)));
    Request request{.prompt = std::move(prompt), .sampling = {.max_tokens = draw(1, 40), .n = draw(0, 9) == 0 ? 3 : 1}};
    if (draw(0, 1) == 0) request.sampling.logprobs = 0;  // which wakes the team
    if (draw(0, 2) > 0) request.sampling.stop_token_ids = {ContentExecutor::stop_token};
    return request;
  }

  void operate(ContentExecutor& executor) {
    const std::int64_t operation = draw(0, 19);
    const auto client = static_cast<std::size_t>(draw(0, 2));
    if (operation < 9) {
      std::vector<Request> requests;
      for (std::int64_t i = draw(1, 3); i > 0; --i) requests.push_back(any_request());
      const bool too_large = std::ranges::any_of(requests, [&](const Request& request) {
        // The last token is never computed.
        const std::int64_t tokens = static_cast<std::int64_t>(request.prompt.size()) + request.sampling.max_tokens - 1;
        std::int64_t needed = 0;
        for (const std::int32_t window : windows_)
          needed += std::min(KvBlockPool::blocks_for(tokens),
                             window == 0 ? tokens : most_touched(window - 1 + limits_.retention.tokens_in_flight));
        return needed > blocks_;
      });
      try {
        const std::vector<RequestId> ids = clients_[client]->submit(requests);
        EXPECT_FALSE(too_large);
        for (std::size_t i = 0; i < ids.size(); ++i) {
          const auto choices = static_cast<std::size_t>(requests[i].sampling.n);
          heard_[ids[i]] = {.request = requests[i],
                            .tokens = std::vector<std::vector<std::int32_t>>(choices),
                            .reasons = std::vector(choices, FinishReason::running),
                            .client = client,
                            .stopped = std::vector<bool>(choices)};
        }
        received_ += static_cast<std::int64_t>(ids.size());
      } catch (const Error& error) {
        EXPECT_TRUE(too_large) << error.what();
        received_ += static_cast<std::int64_t>(requests.size());
        rejected_ += static_cast<std::int64_t>(requests.size());
      }
    } else if (operation < 13 && !heard_.empty()) {
      auto any = heard_.begin();
      std::advance(any, draw(0, static_cast<std::int64_t>(heard_.size()) - 1));
      Heard& heard = any->second;
      if (operation == 12) {
        const std::int64_t choice = draw(0, heard.request.sampling.n - 1);
        clients_[heard.client]->stop(any->first, static_cast<std::int32_t>(choice));
        heard.stopped[static_cast<std::size_t>(choice)] = true;
      } else {
        clients_[heard.client]->cancel(any->first);
        heard.cancelled = true;
      }
    } else if (operation == 13) {
      clients_[client]->leave();
      for (auto& [id, heard] : heard_) heard.cancelled = heard.cancelled || heard.client == client;
      std::erase_if(heard_, [&](const auto& one) { return one.second.client == client; });
    } else if (operation == 14 && draw(0, 3) == 0 && steps_in_flight_ == 1) {
      executor.fails_next = true;
      planted_ = true;
    }
  }

  void listen() {
    for (const std::unique_ptr<Client>& client : clients_)
      for (const Progress& progress : client->poll()) {
        const auto found = heard_.find(progress.id);
        ASSERT_NE(found, heard_.end());
        const auto choice = static_cast<std::size_t>(progress.choice);
        ASSERT_EQ(found->second.reasons[choice], FinishReason::running) << "news after the end";
        auto& tokens = found->second.tokens[choice];
        tokens.insert(tokens.end(), progress.new_tokens.begin(), progress.new_tokens.end());
        found->second.reasons[choice] = progress.reason;
        if (progress.reason == FinishReason::error) ++failed;
      }
  }

  void verify_counts(const RequestLoop& loop) const {
    const RequestCounts counts = loop.request_counts();
    ASSERT_EQ(counts.received, received_);
    ASSERT_EQ(counts.rejected, rejected_);
    ASSERT_EQ(counts.received, counts.running + counts.finished + counts.cancelled + counts.rejected + counts.failed);
    ASSERT_GE(counts.running, 0);
  }

  void verify_ends(bool closed) const {
    for (const auto& [id, heard] : heard_) {
      const Alone expected = alone(heard.request, windows_);
      for (std::size_t choice = 0; choice < heard.reasons.size(); ++choice) {
        const std::vector<std::int32_t>& tokens = heard.tokens[choice];
        ASSERT_LE(tokens.size(), expected.tokens.size()) << "request " << id;
        ASSERT_TRUE(std::equal(tokens.begin(), tokens.end(), expected.tokens.begin())) << "request " << id;
        const FinishReason reason = heard.reasons[choice];
        ASSERT_NE(reason, FinishReason::running) << "request " << id << " never ended";
        if (reason == FinishReason::cancelled) {
          ASSERT_TRUE(heard.cancelled || closed) << "request " << id;
          cancelled_midway += tokens.empty() ? 0 : 1;
        } else if (reason == FinishReason::stop && heard.stopped[choice]) {
          stopped_midway += tokens.size() < expected.tokens.size() ? 1 : 0;
        } else if (reason != FinishReason::error || !planted_) {
          ASSERT_EQ(reason, expected.reason) << "request " << id;
          ASSERT_EQ(tokens.size(), expected.tokens.size()) << "request " << id;
        }
      }
    }
  }

  std::mt19937_64 random_;
  ThreadTeam& team_;
  std::int64_t blocks_ = 0;
  ContentExecutor::Windows windows_ = {0};
  SchedulerLimits limits_;
  int steps_in_flight_ = 1;
  std::vector<std::unique_ptr<Client>> clients_;
  std::map<RequestId, Heard> heard_;
  std::int64_t received_ = 0, rejected_ = 0;
  bool planted_ = false;
};

TEST(RequestLoop, ScriptsOfOperationsLeaveEveryRequestAsAloneAndNothingBehind) {
  const std::uint64_t first = fresh_seed();
  const std::uint64_t scripts = full_stage() ? 100000 : sanitized ? 500 : 5000;
  ThreadTeam one(1), two(2);
  for (std::uint64_t i = 0; i < scripts && !::testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << first << ", script " << i);
    Script(first + i, i % 8 == 0 ? two : one).run();
  }
  // The scripts reach what they are for.
  EXPECT_GT(Script::preempted, static_cast<std::int64_t>(scripts) / 10);
  EXPECT_GT(Script::reused, static_cast<std::int64_t>(scripts));
  EXPECT_GT(Script::failed, static_cast<std::int64_t>(scripts) / 10);
  EXPECT_GT(Script::cancelled_midway, static_cast<std::int64_t>(scripts) / 10);
  EXPECT_GT(Script::stopped_midway, static_cast<std::int64_t>(scripts) / 20);
}

/// A loop with all that it borrows, for so many sequences of 64 tokens at most.
struct SmallEngine {
  SmallEngine(std::int64_t blocks, std::int64_t sequences)
      : executor(blocks),
        pool(blocks),
        rules{.vocabulary = ContentExecutor::vocabulary, .max_model_len = 64, .kv_blocks = blocks},
        loop(std::make_shared<RequestLoop>(LoopOptions{.limits = {.max_num_seqs = sequences,
                                                                  .max_num_batched_tokens = 8,
                                                                  .max_rows = sequences,
                                                                  .max_blocks_per_sequence = 4},
                                                       .vocabulary = ContentExecutor::vocabulary,
                                                       .clock = [] { return 1.0; }},
                                           std::vector<StageExecutors>{{.logits = &executor}}, team, pool,
                                           [](std::span<const std::int32_t>) {})) {}

  ContentExecutor executor;
  KvBlockPool pool;
  ThreadTeam team{1};
  RequestRules rules;
  std::shared_ptr<RequestLoop> loop;
};

/// A request that generates so many tokens.
Request lasting(std::int64_t tokens) {
  Request request{.prompt = {1}, .sampling = {.max_tokens = tokens}};
  while (alone(request, {0}).reason != FinishReason::length)
    request.prompt.push_back(static_cast<std::int32_t>(request.prompt.size()) % ContentExecutor::stop_token);
  return request;
}

TEST(RequestLoop, WhoWaitsForEndsIsToldOfThemWithAllThatCameBefore) {
  SmallEngine engine(16, 4);
  const auto& loop = engine.loop;
  Client client(loop, engine.rules);
  const RequestId brief = client.submit(lasting(3)), longer = client.submit(lasting(20));
  EXPECT_TRUE(client.wait(0.0, Hear::ends).empty());
  while (loop->loop_counts().steps < 2) loop->iterate();
  std::map<RequestId, std::size_t> tokens;
  const auto hear = [&](double timeout_s) {
    const std::vector<Progress> news = client.wait(timeout_s, Hear::ends);
    for (const Progress& progress : news) tokens[progress.id] += progress.new_tokens.size();
    return !news.empty();
  };
  EXPECT_TRUE(hear(0.001)) << "after the time it takes what there is, as a poll does";
  EXPECT_FALSE(hear(0.001));
  EXPECT_EQ(client.open(), 2U);
  loop->start();
  int waits = 0;
  for (; client.open() > 0; ++waits) EXPECT_TRUE(hear(60.0));
  EXPECT_LE(waits, 2) << "a token woke the caller";
  EXPECT_EQ(tokens[brief], 3U);
  EXPECT_EQ(tokens[longer], 20U);
  EXPECT_FALSE(hear(60.0)) << "nothing is open";
}

TEST(RequestLoop, AnEndThatNobodyHeardOfBeforeItsCallerLeftEndsNoLaterWait) {
  SmallEngine engine(16, 4);
  Client client(engine.loop, engine.rules);
  client.submit(lasting(3));
  while (engine.loop->request_counts().finished == 0) engine.loop->iterate();
  client.leave();
  client.submit(lasting(20));
  engine.loop->start();
  const std::vector<Progress> news = client.wait(60.0, Hear::ends);
  ASSERT_EQ(news.size(), 1U);
  EXPECT_EQ(news.front().new_tokens.size(), 20U);
}

TEST(RequestLoop, D4_ABrokenInvariantFailsEveryRequestAtOnceAndTheEngineSaysThatItIsDead) {
  SmallEngine engine(4, 2);
  const auto& loop = engine.loop;
  std::vector<std::int32_t> stolen;  // nobody but the scheduler and calls between its steps may hold blocks
  ASSERT_TRUE(engine.pool.take(4, stolen));
  Client client(loop, engine.rules), other(loop, engine.rules);
  const RequestId id = client.submit(Request{.prompt = {1, 2}, .sampling = {.max_tokens = 3, .n = 2}});
  loop->start();
  std::vector<Progress> news;
  while (client.open() > 0)
    for (Progress& progress : client.wait(60.0)) news.push_back(std::move(progress));
  ASSERT_EQ(news.size(), 2U);
  for (const Progress& progress : news) {
    EXPECT_EQ(progress.id, id);
    EXPECT_EQ(progress.reason, FinishReason::error);
    ASSERT_TRUE(progress.error.has_value());
    EXPECT_EQ(progress.error->code(), ErrorCode::internal);
  }
  const auto code = [](const auto& act) {
    try {
      act();
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::cancelled;
  };
  EXPECT_EQ(code([&] { other.submit(Request{.prompt = {1}, .sampling = {.max_tokens = 1}}); }), ErrorCode::engine_dead);
  EXPECT_EQ(code([&] { loop->call([] {}); }), ErrorCode::engine_dead);
  const RequestCounts counts = loop->request_counts();
  EXPECT_EQ(counts.failed, 1);
  EXPECT_EQ(counts.running, 0);
  loop->close();
}

}  // namespace
}  // namespace lamella::testing
