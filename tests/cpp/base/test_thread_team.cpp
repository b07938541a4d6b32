// Run under ThreadSanitizer as well: the team is what every kernel's memory ordering rests on.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "base/thread_team.h"
#include "failing_new.h"
#include "lamella/error.h"

namespace lamella::testing {
namespace {

TEST(ThreadTeam, EveryMemberRunsOnce) {
  for (const int size : {1, 2, 3, 8}) {
    ThreadTeam team(size);
    std::vector<int> calls(static_cast<std::size_t>(size));
    for (int round = 0; round < 50; ++round) team.run([&](int index) { ++calls[static_cast<std::size_t>(index)]; });
    EXPECT_EQ(calls, std::vector<int>(static_cast<std::size_t>(size), 50));
  }
}

TEST(ThreadTeam, BarrierMakesEarlierWritesVisible) {
  ThreadTeam team(4);
  std::vector<int> values(4, 0);
  std::vector<int> sums(4, 0);
  team.run([&](int index) {
    const auto me = static_cast<std::size_t>(index);
    for (int round = 1; round <= 500; ++round) {
      values[me] = round;
      team.barrier();
      sums[me] += std::accumulate(values.begin(), values.end(), 0);
      team.barrier();
    }
  });
  for (const int sum : sums) EXPECT_EQ(sum, 4 * 500 * 501 / 2);
}

TEST(ThreadTeam, OnlyTheFirstMembersTakePartWhereFewerAreAskedFor) {
  ThreadTeam team(5);
  std::vector<int> calls(5), expected(5);
  for (int round = 0; round < 60; ++round) {
    const int members = 1 + round % 5;
    team.run(members, [&](int index) {
      for (int i = 0; i < 3; ++i) team.barrier();
      ++calls[static_cast<std::size_t>(index)];
    });
    for (int index = 0; index < members; ++index) ++expected[static_cast<std::size_t>(index)];
    EXPECT_EQ(calls, expected);
  }
}

/// CPU time of all threads of this process.
double cpu_seconds() {
  timespec time{};
  EXPECT_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time), 0);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TEST(ThreadTeam, MembersThatWaitSleep) {  // polling, each of the others would use all of the time slept
  ThreadTeam team(4);
  team.run([](int) {});
  const std::chrono::milliseconds pause(400);
  const double before = cpu_seconds();
  std::this_thread::sleep_for(pause);  // between rounds
  team.run([&](int index) {  // at a barrier
    if (index == 2) std::this_thread::sleep_for(pause);
    team.barrier();
  });
  team.run([&](int index) {  // for the end of a round
    if (index == 0) std::this_thread::sleep_for(pause);
  });
  EXPECT_LT(cpu_seconds() - before, 0.2);
}

TEST(ThreadTeam, MembersThatGaveUpPollingMeetAsBefore) {
  ThreadTeam team(3);
  std::vector<int> values(3, 0);
  team.run([&](int index) {
    const auto me = static_cast<std::size_t>(index);
    for (int round = 1; round <= 3000; ++round) {
      // Long waits until nobody polls any more, then short ones until they do again.
      if (round < 40 && index == round % 3) std::this_thread::sleep_for(std::chrono::microseconds(200));
      values[me] = round;
      team.barrier();
      EXPECT_EQ(values, std::vector<int>(3, round));
      team.barrier();
    }
  });
}

TEST(ThreadTeam, RethrowsAMembersExceptionAndStaysUsable) {
  ThreadTeam team(3);
  for (const int failing : {0, 2}) {
    EXPECT_THROW(team.run([&](int index) {
      if (index == failing) throw std::runtime_error("member");
    }),
                 std::runtime_error);
  }
  int calls = 0;
  team.run([&](int index) {
    if (index == 0) ++calls;
  });
  EXPECT_EQ(calls, 1);
}

TEST(ThreadTeam, D3_AnAllocationThatFailsWhileItStartsLeavesNoThread) {
  const auto threads = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
  };
  ThreadTeam(2).run([](int) {});  // ThreadSanitizer starts a thread of its own beside a program's first one
  const auto before = threads();
  int failures = 0;
  bool reached = true;
  for (std::size_t allocation = 0; reached; ++allocation) {
    const FailingNew failing(allocation);
    try {
      const ThreadTeam team(6);
    } catch (const Error& error) {
      ++failures;
      EXPECT_EQ(error.code(), ErrorCode::out_of_memory) << error.what();
    }
    reached = failing.failed();
  }
  EXPECT_GE(failures, 6);
  for (int i = 0; i < 1000 && threads() != before; ++i)  // a joined thread may be listed a moment longer
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(threads(), before);
}

TEST(ThreadTeam, AForkedChildLeavesWithoutWaitingForThreadsItHasNot) {
  auto team = std::make_unique<ThreadTeam>(3);
  const pid_t child = fork();
  if (child == 0) {
    team.reset();
    _exit(7);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

TEST(ThreadTeam, MoreMembersThanCoresMakeProgress) {
  ThreadTeam team(16);
  int rounds = 0;
  team.run([&](int index) {
    for (int i = 0; i < 50; ++i) {
      team.barrier();
      if (index == 0) ++rounds;
    }
  });
  EXPECT_EQ(rounds, 50);
}

}  // namespace
}  // namespace lamella::testing
