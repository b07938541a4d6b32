// Run under ThreadSanitizer as well: the team is what every kernel's memory ordering rests on.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <numeric>
#include <stdexcept>

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
