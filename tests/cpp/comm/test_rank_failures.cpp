// What the others learn of a rank that fails, stays away or calls something else (reliability.md, E1, E2 and E4 in
// process).
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "comm/local_world.h"
#include "every_call.h"
#include "ranks.h"

namespace lamella::comm::testing {
namespace {

using namespace std::chrono_literals;

TEST(RankFailures, ARankThatStaysAwayIsNamedByAll) {
  for (const NamedCall& call : every_call()) {
    for (const std::size_t count : {std::size_t{12}, std::size_t{30000}}) {
      SCOPED_TRACE(call.name);
      LocalWorld world(3, 100ms);
      const Ends ends = world.group({"tensor", {0, 1, 2}});
      const auto thrown = run_ranks(3, [&](int rank) {
        if (rank == 1) return;
        std::vector<float> data(count);
        call.run(*ends[static_cast<std::size_t>(rank)], data);
      });
      for (const int rank : {0, 2})
        EXPECT_EQ(failure_text(thrown[static_cast<std::size_t>(rank)]),
                  std::string("rank 1 failed: it did not come to ") + call.name + " of group tensor within 0.1 s");
    }
  }
}

TEST(RankFailures, AllWhoStayAwayAreNamed) {
  LocalWorld world(5, 100ms);
  const Ends ends = world.all();
  const auto thrown = run_ranks(5, [&](int rank) {
    if (rank % 2 == 0) ends[static_cast<std::size_t>(rank)]->barrier();
  });
  for (const int rank : {0, 2, 4})
    EXPECT_EQ(failure_text(thrown[static_cast<std::size_t>(rank)]),
              "rank 1 failed: it did not come to barrier of group world within 0.1 s; nor did rank 3");
}

TEST(RankFailures, ABarrierMayHaveADeadlineOfItsOwn) {
  LocalWorld world(2);
  const Ends ends = world.all();
  run_sound_ranks(2, [&](int rank) { ends[static_cast<std::size_t>(rank)]->barrier(10s); });
  EXPECT_EQ(failure_text(run_ranks(1, [&](int) { ends[0]->barrier(50ms); })[0]),
            "rank 1 failed: it did not come to barrier of group world within 0.05 s");
}

TEST(RankFailures, AReportEndsAllWaitsOfAllGroupsAtOnce) {
  for (const NamedCall& call : every_call()) {
    SCOPED_TRACE(call.name);
    LocalWorld world(4);  // who waited for the deadline would take a minute
    const Ends all = world.all(), pair = world.group({"pair", {0, 1}}), other = world.group({"other", {2, 3, 1}});
    const auto begin = std::chrono::steady_clock::now();
    const auto thrown = run_ranks(4, [&](int rank) {
      std::vector<float> data(12);
      if (rank == 0) call.run(*all[0], data);
      if (rank == 2) call.run(*other[0], data);
      if (rank == 3) call.run(*other[1], data);
      if (rank == 1) {
        std::this_thread::sleep_for(30ms);
        pair[1]->fail("it ran out of memory");
        call.run(*pair[1], data);
      }
    });
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
    for (const auto& one : thrown) EXPECT_EQ(failure_text(one), "rank 1 failed: it ran out of memory");
    // And what is called later fails the same way, in groups of those who had no part in it too.
    std::vector<float> data(12);
    for (const NamedCall& later : every_call())
      EXPECT_EQ(failure_text(run_ranks(1, [&](int) { later.run(*all[3], data); })[0]),
                "rank 1 failed: it ran out of memory");
  }
}

TEST(RankFailures, RanksThatCallDifferentThingsAreToldSo) {
  LocalWorld world(3);
  const Ends ends = world.all();
  const auto thrown = run_ranks(3, [&](int rank) {
    std::vector<float> data(rank == 2 ? 12 : 16);
    ends[static_cast<std::size_t>(rank)]->all_reduce({data.data(), data.size()}, Reduction::sum);
  });
  for (const auto& one : thrown)
    EXPECT_EQ(
        failure_text(one),
        "rank 2 failed: it called all_reduce of 48 bytes in group world where rank 0 called all_reduce of 64 bytes; "
        "ranks must run the same engine on the same model");
}

TEST(RankFailures, WhoSendsAnotherNumberOfBytesIsNamed) {
  {
    LocalWorld world(2);
    const Ends ends = world.all();
    const auto thrown = run_ranks(2, [&](int rank) {
      std::vector<std::byte> from(rank == 0 ? 8 : 12), to(8);
      const std::vector<std::size_t> counts =
          rank == 0 ? std::vector<std::size_t>{4, 4} : std::vector<std::size_t>{8, 4};
      const std::vector<std::size_t> received{4, 4};
      ends[static_cast<std::size_t>(rank)]->all_to_all(from, counts, to, received);
    });
    for (const auto& one : thrown)
      EXPECT_EQ(failure_text(one),
                "rank 1 failed: it sends rank 0 another number of bytes than the 4 expected in all_to_all");
  }
  LocalWorld world(2);
  const Ends ends = world.all();
  const auto thrown = run_ranks(2, [&](int rank) {
    std::vector<std::byte> data(rank == 0 ? 8 : 12);
    if (rank == 0) ends[0]->send(data, 1);
    else ends[1]->receive(data, 0);
  });
  EXPECT_EQ(failure_text(thrown[1]), "rank 0 failed: it sent 8 bytes in group world where rank 1 expects 12");
}

/// Ranks free their buffers as soon as they learn of a failure: under AddressSanitizer nobody may read them any more.
TEST(RankFailures, BuffersMayGoWithTheError) {
  for (int round = 0; round < 30; ++round) {
    LocalWorld world(4);
    const Ends ends = world.all();
    const auto thrown = run_ranks(4, [&](int rank) {
      for (int step = 0;; ++step) {
        std::vector<float> data(60000, 1.0F);
        if (rank == 3 && step == 3 + round % 3) {
          std::this_thread::sleep_for(std::chrono::microseconds(round * 20));
          ends[3]->fail("it was told to");
        }
        ends[static_cast<std::size_t>(rank)]->all_reduce({data.data(), data.size()}, Reduction::sum);
      }
    });
    for (const auto& one : thrown) EXPECT_EQ(failure_text(one), "rank 3 failed: it was told to");
  }
}

TEST(RankFailures, AGroupMayOutliveItsWorld) {
  Ends ends;
  {
    LocalWorld world(2);
    ends = world.all();
  }
  run_sound_ranks(2, [&](int rank) { ends[static_cast<std::size_t>(rank)]->barrier(); });
}

}  // namespace
}  // namespace lamella::comm::testing
