// Callbacks: on which thread they run, what they may do, and what becomes of one that throws.
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <mutex>
#include <set>
#include <thread>

#include "stores.h"

namespace lamella::testing {
namespace {

TEST(Callbacks, AreToldEverythingInOrderOnOneThreadOfTheEngine) {
  Embedded engine;
  SCOPED_TRACE(::testing::Message() << "seed " << engine.seed());
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    requests.push_back(engine.brief(4 + 3 * i));
    requests.back().sampling.n = 1 + i % 2;
  }
  std::vector<std::vector<Said>> said(requests.size());
  std::set<std::thread::id> threads;
  std::vector<Subscription> subscriptions;
  for (std::size_t i = 0; i < requests.size(); ++i)
    subscriptions.push_back(engine
                                ->submit(requests[i],
                                         [&, i](const Progress& progress) {
                                           threads.insert(std::this_thread::get_id());
                                           EXPECT_EQ(progress.id, i + 1);
                                           gather(said[i], progress);
                                         })
                                .value());
  const std::unique_ptr<EngineCore> core = engine.core();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(subscriptions[i].id(), i + 1);
    EXPECT_TRUE(subscriptions[i].wait().value());
    EXPECT_TRUE(subscriptions[i].wait(Seconds::zero()).value());
    const std::vector<std::int32_t> expected = generate(*core, requests[i]);
    ASSERT_EQ(said[i].size(), static_cast<std::size_t>(requests[i].sampling.n));
    for (const Said& choice : said[i]) {
      EXPECT_EQ(choice.tokens, expected);  // greedy: all choices say the same
      EXPECT_EQ(choice.reason, FinishReason::length);
    }
  }
  EXPECT_EQ(threads.size(), 1U);
  EXPECT_FALSE(threads.contains(std::this_thread::get_id()));
  expect_idle(*engine);
}

TEST(Callbacks, G_OneThatThrowsEndsItsRequestAlone) {
  Embedded engine;
  const Request request = engine.brief(30);
  int calls = 0, calls_of_other = 0;
  std::vector<Said> good;
  const Subscription listening =
      engine->submit(request, [&](const Progress& progress) { gather(good, progress); }).value();
  const Subscription throwing = engine
                                    ->submit(engine.endless(),
                                             [&](const Progress&) {
                                               if (++calls == 3) throw std::runtime_error("the socket is gone");
                                             })
                                    .value();
  const Subscription odd = engine
                               ->submit(engine.endless(),
                                        [&](const Progress&) {
                                          ++calls_of_other;
                                          throw 5;  // NOLINT(bugprone-std-exception-baseclass): what callers may do
                                        })
                               .value();
  expect_refused(throwing.wait(), ErrorCode::cancelled, {"callback threw", "the socket is gone"});
  expect_refused(throwing.wait(Seconds::zero()), ErrorCode::cancelled, {"the socket is gone"});
  expect_refused(odd.wait(), ErrorCode::cancelled, {"callback threw"});
  EXPECT_TRUE(listening.wait().value());
  EXPECT_EQ(good.front().tokens, generate(*engine.core(), request));
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(calls_of_other, 1);
  expect_idle(*engine);
  EXPECT_EQ(engine->stats().cancelled, 2);
  EXPECT_EQ(engine->stats().finished, 1);
}

TEST(Callbacks, ThrowingAtTheEndIsReportedToo) {
  Embedded engine;
  const Subscription subscription = engine
                                        ->submit(engine.brief(),
                                                 [](const Progress& progress) {
                                                   if (progress.reason != FinishReason::running)
                                                     throw Error(ErrorCode::io_error, "disk full");
                                                 })
                                        .value();
  expect_refused(subscription.wait(), ErrorCode::cancelled, {"disk full"});
  EXPECT_EQ(engine->stats().finished, 1);  // it had finished by then
}

TEST(Callbacks, CancelStopAndTimeouts) {
  Embedded engine;
  std::vector<Said> cancelled, stopped;
  Subscription first =
      engine->submit(engine.endless(), [&](const Progress& progress) { gather(cancelled, progress); }).value();
  Subscription second =
      engine->submit(engine.endless(), [&](const Progress& progress) { gather(stopped, progress); }).value();
  EXPECT_FALSE(first.wait(Seconds(0.001)).value());
  first.cancel();
  second.stop();
  EXPECT_TRUE(first.wait().value());
  EXPECT_TRUE(second.wait().value());
  EXPECT_EQ(cancelled.front().reason, FinishReason::cancelled);
  EXPECT_EQ(stopped.front().reason, FinishReason::stop);
  const Subscription moved = std::move(first);
  expect_refused(first.wait(), ErrorCode::invalid_argument, {"moved"});  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(first.id(), 0U);
  first.cancel();
  first.stop();
  EXPECT_TRUE(moved.wait().value());
  expect_refused(engine->submit(engine.brief(), OnProgress()), ErrorCode::invalid_argument, {"on_progress"});
  expect_refused(engine->submit({.prompt = {}}, [](const Progress&) {}), ErrorCode::invalid_argument, {"no tokens"});
  expect_idle(*engine);
}

TEST(Callbacks, G_DroppingASubscriptionWaitsForTheCallThatRuns) {
  Embedded engine;
  for (int i = 0; i < 20; ++i) {
    std::latch began(1);
    bool first = true, gone = false;  // no atomics: the destructor orders the accesses
    auto subscription = std::make_unique<Subscription>(engine
                                                           ->submit(engine.endless(),
                                                                    [&](const Progress&) {
                                                                      EXPECT_FALSE(gone);
                                                                      if (std::exchange(first, false))
                                                                        began.count_down();
                                                                      std::this_thread::yield();
                                                                    })
                                                           .value());
    began.wait();
    subscription.reset();
    gone = true;
  }
  expect_idle(*engine);
  EXPECT_EQ(engine->stats().cancelled, 20);
}

TEST(Callbacks, MayCallTheEngineAndDropThemselves) {
  Embedded engine;
  std::optional<Subscription> outer, inner;
  std::vector<Said> said;
  std::latch ready(1), done(1);
  const auto use_everything = [&](const Progress&) {
    ready.wait();
    expect_refused(outer->wait(), ErrorCode::invalid_argument, {"inside a callback"});
    EXPECT_FALSE(outer->wait(Seconds::zero()).value());
    expect_refused(engine->close(), ErrorCode::invalid_argument, {"inside a callback"});
    EXPECT_GT(engine->stats().received, 0);
    inner.emplace(engine
                      ->submit(engine.brief(),
                               [&](const Progress& progress) {
                                 gather(said, progress);
                                 if (progress.reason != FinishReason::running) done.count_down();
                               })
                      .value());
    outer.reset();  // this call is the last
  };
  outer.emplace(engine->submit(engine.endless(), use_everything).value());
  ready.count_down();
  done.wait();
  EXPECT_TRUE(inner->wait().value());
  EXPECT_EQ(said.front().tokens.size(), 8U);
  expect_idle(*engine);
}

TEST(Callbacks, ASlowOneDelaysNoStream) {
  Embedded engine;
  std::latch release(1);
  const Subscription slow = engine->submit(engine.brief(), [&](const Progress&) { release.wait(); }).value();
  Stream stream = engine->submit(engine.brief(40)).value();
  EXPECT_EQ(hear(stream).front().tokens.size(), 40U);
  release.count_down();
  EXPECT_TRUE(slow.wait().value());
}

TEST(Callbacks, WhatTheyHoldGoesWhenTheirRequestIsOver) {
  Embedded engine;
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = held;
  const Subscription subscription = engine->submit(engine.brief(), [held](const Progress&) {}).value();
  held.reset();
  EXPECT_TRUE(subscription.wait().value());
  EXPECT_TRUE(watch.expired());  // and the subscription lives on
}

TEST(Callbacks, G_ClosingTellsThemAllAndSubscriptionsMayOutliveTheEngine) {
  Embedded engine;
  std::vector<std::vector<Said>> said(6);
  std::vector<Subscription> subscriptions;
  for (std::vector<Said>& own : said)
    subscriptions.push_back(
        engine->submit(engine.endless(), [&](const Progress& progress) { gather(own, progress); }).value());
  EXPECT_TRUE(engine->close().ok());
  for (const std::vector<Said>& own : said) EXPECT_EQ(own.front().reason, FinishReason::cancelled);
  expect_refused(engine->submit(engine.brief(), [](const Progress&) {}), ErrorCode::invalid_argument, {"closed"});
  engine.destroy();
  for (Subscription& subscription : subscriptions) {
    EXPECT_TRUE(subscription.wait().value());
    subscription.cancel();
  }
}

TEST(Callbacks, G_TheEngineMayBeDestroyedInsideOne) {
  auto engine = std::make_unique<Embedded>();
  std::latch ready(1);
  std::vector<Said> first, second;
  const Subscription destroying = (*engine)
                                      ->submit(engine->endless(),
                                               [&](const Progress& progress) {
                                                 ready.wait();
                                                 gather(first, progress);
                                                 engine->destroy();
                                               })
                                      .value();
  const Subscription other =
      (*engine)->submit(engine->endless(), [&](const Progress& progress) { gather(second, progress); }).value();
  ready.count_down();
  EXPECT_TRUE(destroying.wait().value());
  EXPECT_TRUE(other.wait().value());
  EXPECT_EQ(first.front().reason, FinishReason::cancelled);
  EXPECT_EQ(second.front().reason, FinishReason::cancelled);
}

}  // namespace
}  // namespace lamella::testing
