// lamella::Engine and its streams, as an embedding service uses them.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <limits>
#include <thread>

#include "failing_new.h"
#include "stores.h"

namespace lamella::testing {
namespace {

TEST(EmbeddedEngine, SaysWhatTheEngineInsideSays) {
  Embedded engine;
  SCOPED_TRACE(::testing::Message() << "seed " << engine.seed());
  const std::unique_ptr<EngineCore> core = engine.core();
  std::vector<Request> requests;
  for (int i = 0; i < 8; ++i)
    requests.push_back({.prompt = engine.prompt(1 + static_cast<std::size_t>(i) * 7),
                        .sampling = {.max_tokens = 5 + 3 * i,
                                     .temperature = i % 2 == 0 ? 0.0 : 0.9,
                                     .seed = engine.seed() + static_cast<unsigned>(i),
                                     .n = i % 3 == 0 ? 2 : 1,
                                     .logprobs = 2}});
  std::vector<Stream> streams = engine->submit(requests).value();
  ASSERT_EQ(streams.size(), requests.size());
  for (std::size_t i = 0; i < streams.size(); ++i) {
    EXPECT_EQ(streams[i].id(), i + 1);
    const std::vector<Said> said = hear(streams[i]);
    ASSERT_EQ(said.size(), static_cast<std::size_t>(requests[i].sampling.n));
    Listener listener(*core);
    const RequestId id = listener.submit(requests[i]);
    for (std::size_t choice = 0; choice < said.size(); ++choice) {
      EXPECT_EQ(said[choice].tokens, listener.finish(id, static_cast<std::int32_t>(choice)).tokens) << "request " << i;
      EXPECT_EQ(said[choice].reason, FinishReason::length);
      ASSERT_EQ(said[choice].logprobs.size(), said[choice].tokens.size());
      for (std::size_t t = 0; t < said[choice].tokens.size(); ++t)
        EXPECT_EQ(said[choice].logprobs[t].front().token, said[choice].tokens[t]);
    }
  }
  const std::vector<std::int32_t> tokens = engine.prompt(20);
  EXPECT_EQ(engine->logits(tokens).value(), core->logits(tokens));
  expect_idle(*engine);
  const Statistics stats = engine->stats();
  EXPECT_EQ(stats.received, 8);
  EXPECT_EQ(stats.finished, 8);
  EXPECT_GT(stats.steps, 0);
  EXPECT_GT(stats.kv_blocks_total, 0);
  EXPECT_GT(stats.bytes_weights, 0U);
  EXPECT_EQ(engine->vocabulary(), 101);
  EXPECT_EQ(engine->max_model_len(), 1 << 16);
}

TEST(EmbeddedEngine, Encodes) {
  Embedded engine(bert_like(), {.threads = 2, .max_num_seqs = 4});
  const std::vector<std::vector<std::int32_t>> inputs = {engine.prompt(3), engine.prompt(9)};
  EXPECT_EQ(engine->encode(inputs).value(), engine.core()->encode(inputs, Pooling::mean));
  EXPECT_EQ(engine->encode(inputs, Pooling::none).value(), engine.core()->encode(inputs, Pooling::none));
  expect_refused(engine->submit(engine.brief()), ErrorCode::invalid_argument, {"encoder"});
  expect_refused(engine->encode({inputs[0], {-1}}), ErrorCode::invalid_argument, {"input 1"});
  Embedded decoder;
  expect_refused(decoder->encode(inputs), ErrorCode::invalid_argument, {"encode"});
}

TEST(EmbeddedEngine, AListIsCheckedWholeBeforeItStarts) {
  Embedded engine;
  expect_refused(engine->submit({engine.brief(), engine.brief(), {.prompt = {101}}}), ErrorCode::invalid_argument,
                 {"request 2: ", "101"});
  EXPECT_EQ(engine->stats().received, 3);
  EXPECT_EQ(engine->stats().rejected, 3);
  expect_refused(engine->submit(Request{.prompt = {}}), ErrorCode::invalid_argument, {"no tokens"});
  expect_refused(engine->submit(Request{.prompt = {1}, .sampling = {.max_tokens = 1 << 16}}),
                 ErrorCode::context_too_long, {"65536"});
  expect_refused(engine->submit(Request{.prompt = {1}, .sampling = {.top_p = 0.0}}), ErrorCode::invalid_argument,
                 {"top_p"});
  expect_refused(engine->logits({-5}), ErrorCode::invalid_argument, {"-5"});
  EXPECT_TRUE(engine->submit(std::vector<Request>()).value().empty());
  EXPECT_EQ(engine->stats().steps, 0);
  expect_idle(*engine);
}

TEST(EmbeddedEngine, RefusesOptionsOutsideTheirRangeByName) {
  const Embedded made;
  const std::uint64_t nothing = 1000;
  expect_refused(Engine::open(made.path(), {.threads = -1}), ErrorCode::invalid_argument, {"threads", "-1"});
  expect_refused(Engine::open(made.path(), {.dtype = DataType::i32}), ErrorCode::invalid_argument, {"dtype", "int32"});
  expect_refused(Engine::open(made.path(), {.max_num_seqs = 0}), ErrorCode::invalid_argument, {"max_num_seqs"});
  expect_refused(Engine::open(made.path(), {.max_model_len = 1 << 17}), ErrorCode::invalid_argument, {"max_model_len"});
  expect_refused(Engine::open(made.path(), {.max_num_batched_tokens = 0}), ErrorCode::invalid_argument,
                 {"max_num_batched_tokens"});
  expect_refused(Engine::open(made.path(), {.memory_budget = nothing}), ErrorCode::out_of_memory, {"weights"});
  expect_refused(Engine::open(made.path().parent_path() / "absent"), ErrorCode::io_error, {"absent"});
}

TEST(EmbeddedEngine, TellsHowFarItHasLoadedAndWhatThatThrows) {
  const Embedded made;
  std::uint64_t last = 0, all = 0;
  ASSERT_TRUE(Engine::open(made.path(), {.on_load =
                                             [&](std::uint64_t done, std::uint64_t total) {
                                               EXPECT_GE(done, last);
                                               last = done;
                                               all = total;
                                             }})
                  .ok());
  EXPECT_GT(all, 0U);
  EXPECT_EQ(last, all);
  expect_refused(
      Engine::open(made.path(), {.on_load = [](std::uint64_t, std::uint64_t) { throw std::runtime_error("enough"); }}),
      ErrorCode::cancelled, {"on_load", "enough"});
}

TEST(EmbeddedEngine, F7_CancellingAndDroppingEndARequest) {
  Embedded engine;
  Stream cancelled = engine->submit(engine.endless()).value();
  EXPECT_FALSE(cancelled.next().value().empty());
  std::thread other([&] { cancelled.cancel(); });
  EXPECT_EQ(hear(cancelled).front().reason, FinishReason::cancelled);
  other.join();
  cancelled.cancel();  // over already
  {
    const Stream dropped = engine->submit(engine.endless()).value();
  }
  std::vector<Stream> several = engine->submit({engine.endless(), engine.endless()}).value();
  several.erase(several.begin());
  several.front() = engine->submit(engine.brief()).value();  // moved over: dropped as well
  EXPECT_EQ(hear(several.front()).front().tokens.size(), 8U);
  expect_idle(*engine);
  EXPECT_EQ(engine->stats().cancelled, 4);
  EXPECT_EQ(engine->stats().finished, 1);
}

TEST(EmbeddedEngine, StopEndsAChoiceAsFinished) {
  Embedded engine;
  Request request = engine.endless();
  request.sampling.temperature = 1.0;
  request.sampling.n = 2;
  Stream stream = engine->submit(request).value();
  EXPECT_FALSE(stream.next().value().empty());
  stream.stop(1);
  stream.stop(9);  // unknown
  std::vector<Said> said;
  while (said.size() < 2 || said[1].reason == FinishReason::running)
    for (const Progress& progress : stream.next().value()) gather(said, progress);
  EXPECT_EQ(said[1].reason, FinishReason::stop);
  EXPECT_FALSE(stream.finished());
  stream.stop();
  hear(stream);
  expect_idle(*engine);
  EXPECT_EQ(engine->stats().finished, 1);
}

TEST(EmbeddedEngine, WaitsAsLongAsItIsTold) {
  Embedded engine;
  std::vector<Stream> busy =
      engine->submit({engine.endless(), engine.endless(), engine.endless(), engine.endless()}).value();
  Stream waiting = engine->submit(engine.brief()).value();  // no place for a fifth
  for (const double none :
       {0.0, -1.0, 0.001, -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
    EXPECT_TRUE(waiting.next(Seconds(none)).value().empty());
  EXPECT_FALSE(waiting.finished());
  busy.clear();
  EXPECT_EQ(hear(waiting).front().tokens.size(), 8U);
  EXPECT_TRUE(waiting.finished());
  EXPECT_TRUE(waiting.next().value().empty());  // over: for ever is no time
}

TEST(EmbeddedEngine, ADescriptorTellsOfNews) {
  Embedded engine;
  Stream stream = engine->submit(engine.brief()).value();
  pollfd polled{.fd = stream.event_fd().value(), .events = POLLIN, .revents = 0};
  std::vector<Said> said;
  while (!stream.finished()) {
    ASSERT_EQ(::poll(&polled, 1, 60000), 1);
    for (const Progress& progress : stream.next(Seconds::zero()).value()) gather(said, progress);
  }
  EXPECT_EQ(said.front().tokens.size(), 8U);
}

TEST(EmbeddedEngine, G_CloseEndsWhatRunsAndRefusesWhatComes) {
  Embedded engine;
  Stream stream = engine->submit(engine.endless()).value();
  EXPECT_FALSE(stream.next().value().empty());
  std::thread reader([&] { EXPECT_EQ(hear(stream).front().reason, FinishReason::cancelled); });
  EXPECT_TRUE(engine->close().ok());
  EXPECT_TRUE(engine->close().ok());
  reader.join();
  expect_refused(engine->submit(engine.brief()), ErrorCode::invalid_argument, {"closed"});
  expect_refused(engine->logits({1}), ErrorCode::invalid_argument, {"closed"});
  expect_idle(*engine);
  EXPECT_EQ(engine->stats().cancelled, 1);
}

TEST(EmbeddedEngine, G_AStreamMayOutliveItsEngine) {
  Embedded engine;
  const Request request = engine.brief(20);
  const std::vector<std::int32_t> expected = generate(*engine.core(), request);
  std::vector<Stream> streams = engine->submit({engine.endless(), request}).value();
  while (engine->stats().finished == 0) std::this_thread::yield();
  engine.destroy();
  EXPECT_EQ(hear(streams[0]).front().reason, FinishReason::cancelled);
  EXPECT_EQ(hear(streams[1]).front().tokens, expected);  // what was said before is not lost
  streams[0].cancel();
  EXPECT_TRUE(streams[0].next(Seconds::zero()).value().empty());
}

TEST(EmbeddedEngine, G_WhatWasMovedFromSaysSo) {
  Embedded engine;
  Stream first = engine->submit(engine.brief()).value();
  Stream second = std::move(first);
  EXPECT_TRUE(first.finished());  // NOLINT(bugprone-use-after-move,clang-analyzer-cplusplus.Move): what is tested
  EXPECT_EQ(first.id(), 0U);
  first.cancel();
  first.stop();
  expect_refused(first.next(), ErrorCode::invalid_argument, {"moved"});
  expect_refused(first.event_fd(), ErrorCode::invalid_argument, {"moved"});
  EXPECT_EQ(hear(second).front().tokens.size(), 8U);
  Engine other = std::move(*engine);
  expect_refused(engine->submit(engine.brief()), ErrorCode::invalid_argument, {"moved"});
  expect_refused(engine->close(), ErrorCode::invalid_argument, {"moved"});
  EXPECT_EQ(engine->stats().received + engine->vocabulary() + engine->max_model_len(), 0);
  EXPECT_TRUE(other.submit(engine.brief()).ok());
}

TEST(EmbeddedEngine, G_ManyThreadsShareOneEngine) {
  Embedded engine;
  const Request request = engine.brief(12);
  const std::vector<std::int32_t> expected = generate(*engine.core(), request);
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c)
    clients.emplace_back([&, c] {
      for (int i = 0; i < 5; ++i) {
        std::vector<Stream> streams = engine->submit({request, request}).value();
        if (c == 3) streams.pop_back();
        EXPECT_EQ(hear(streams.front()).front().tokens, expected);
        expect_balanced(*engine);
      }
    });
  for (std::thread& client : clients) client.join();
  expect_idle(*engine);
  EXPECT_EQ(engine->stats().received, 40);
}

TEST(EmbeddedEngine, G_AForkedChildMayDestroyItsCopies) {
  Embedded engine;
  auto stream = std::make_unique<Stream>(engine->submit(engine.endless()).value());
  auto subscription = std::make_unique<Subscription>(engine->submit(engine.endless(), [](const Progress&) {}).value());
  EXPECT_FALSE(stream->next().value().empty());
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::alarm(30);
    stream.reset();
    subscription.reset();
    engine.destroy();
    ::_exit(0);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(stream->next().value().empty());  // here all goes on
}

/// Every allocation of `call` fails once, one after another (of the later ones not each: that would take long).
template <typename Call>
void fail_each_allocation(const Call& call) {
  bool reached = true;
  for (std::size_t before = 0; reached; before += 1 + before / 200) {
    const std::optional<Error> error = call(before, reached);
    if (error) {
      EXPECT_TRUE(reached);
      EXPECT_EQ(error->code(), ErrorCode::out_of_memory) << error->what() << ", allocation " << before;
    }
  }
}

TEST(EmbeddedEngine, D3_MemoryThatRunsOutIsAnErrorAndNothingElse) {
  Embedded engine;
  const EngineOptions options{.threads = 2, .max_num_seqs = 4};
  fail_each_allocation([&](std::size_t before, bool& reached) -> std::optional<Error> {
    const FailingNew failing(before);
    const Result<Engine> opened = Engine::open(engine.path(), options);
    reached = failing.failed();
    return opened ? std::nullopt : std::optional(opened.error());
  });
  const Request request = engine.brief();
  const std::vector<std::int32_t> expected = generate(*engine.core(), request);
  fail_each_allocation([&](std::size_t before, bool& reached) -> std::optional<Error> {
    std::vector<Request> requests(3, request);
    const FailingNew failing(before);
    const Result<std::vector<Stream>> streams = engine->submit(std::move(requests));
    reached = failing.failed();
    return streams ? std::nullopt : std::optional(streams.error());
  });
  fail_each_allocation([&](std::size_t before, bool& reached) -> std::optional<Error> {
    Request own = request;
    OnProgress callback = [](const Progress&) {};
    const FailingNew failing(before);
    const Result<Subscription> subscription = engine->submit(std::move(own), std::move(callback));
    reached = failing.failed();
    return subscription ? std::nullopt : std::optional(subscription.error());
  });
  while (engine->stats().running > 0) std::this_thread::yield();
  fail_each_allocation([&](std::size_t before, bool& reached) -> std::optional<Error> {
    Stream stream = engine->submit(request).value();
    while (engine->stats().running > 0) std::this_thread::yield();
    std::optional<Error> error;
    {
      const FailingNew failing(before);
      const Result<std::vector<Progress>> news = stream.next();
      reached = failing.failed();
      if (news) {
        EXPECT_EQ(news.value().front().new_tokens, expected);
      } else {
        error = news.error();
      }
    }
    if (error) {
      EXPECT_EQ(hear(stream).front().tokens, expected);  // nothing is lost
    }
    return error;
  });
  Stream last = engine->submit(request).value();
  EXPECT_EQ(hear(last).front().tokens, expected);
  expect_idle(*engine);
}

}  // namespace
}  // namespace lamella::testing
