// What processes learn of a rank that fails, stays away or calls something else (reliability.md, E2 and E4): run by
// mpirun with 3 ranks, all of which live on. MPI is begun by the program, as it would be by an embedding one, so that
// each test can have a world of its own after the last one's has failed.
#include <gtest/gtest.h>
#include <mpi.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "../every_call.h"
#include "../handshakes.h"
#include "../ranks.h"
#include "comm/mpi_world.h"
#include "mpi_main.h"

namespace lamella::comm::testing {
namespace {

using namespace std::chrono_literals;

/// The message of the rank_failed that the body throws, "" where it throws nothing.
std::string failure_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error&) {
    return failure_text(std::current_exception());
  }
  return "";
}

std::string on_this_host(const std::string& rank) {
  char host[256] = {};
  EXPECT_EQ(::gethostname(host, sizeof host - 1), 0);
  return rank + " on " + host;
}

TEST(MpiFailures, ARankThatStaysAwayIsNamedByAll) {
  for (const NamedCall& call : every_call()) {
    for (const std::size_t count : {std::size_t{12}, std::size_t{300000}}) {
      SCOPED_TRACE(call.name);
      MpiWorld world({.deadline = 200ms});
      const auto end = world.group({"tensor", {0, 1, 2}});
      if (world.rank() == 1) continue;
      std::vector<float> data(count);
      EXPECT_EQ(failure_of([&] { call.run(*end, data); }),
                on_this_host("rank 1") + " failed: it did not come to " + call.name + " of group tensor within 0.2 s");
    }
  }
}

TEST(MpiFailures, ARankThatWaitsItselfIsNotAccused) {
  MpiWorld world({.deadline = 1s});
  const auto all = world.all(), others = world.group({"others", {1, 2}});
  // Rank 0 waits for 1 and 2, rank 1 for 2, which does nothing: so rank 2 is to blame, also where 0 is the first to
  // find it.
  if (world.rank() == 1) std::this_thread::sleep_for(100ms);
  if (world.rank() == 2) return;
  EXPECT_EQ(failure_of([&] { world.rank() == 0 ? all->barrier() : others->barrier(); }),
            on_this_host("rank 2") + " failed: it did not come to barrier of group world within 1 s");
}

TEST(MpiFailures, AReportEndsAllWaitsOfAllGroupsAtOnce) {
  for (const NamedCall& call : every_call()) {
    SCOPED_TRACE(call.name);
    MpiWorld world;  // who waited for the deadline would take a minute
    const auto all = world.all(), pair = world.group({"pair", {0, 1}}), other = world.group({"other", {2, 1}});
    const auto begin = std::chrono::steady_clock::now();
    std::vector<float> data(12);
    const std::string told = failure_of([&] {
      if (world.rank() == 0) call.run(*pair, data);
      if (world.rank() == 2) call.run(*other, data);
      std::this_thread::sleep_for(30ms);
      pair->fail("it ran out of memory");
      call.run(*all, data);
    });
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
    const std::string expected = on_this_host("rank 1") + " failed: it ran out of memory";
    EXPECT_EQ(told, expected);
    for (const NamedCall& later : every_call()) EXPECT_EQ(failure_of([&] { later.run(*all, data); }), expected);
  }
}

TEST(MpiFailures, RanksThatCallDifferentThingsAreToldSo) {
  {
    MpiWorld world;
    const auto all = world.all();
    std::vector<float> data(world.rank() == 2 ? 12 : 16);
    EXPECT_EQ(failure_of([&] { all->all_reduce({data.data(), data.size()}, Reduction::sum); }),
              on_this_host("rank 2") + " failed: it called all_reduce of 48 bytes in group world where " +
                  on_this_host("rank 0") +
                  " called all_reduce of 64 bytes; ranks must run the same engine on the same model");
  }
  {
    MpiWorld world;
    const auto all = world.all();
    std::vector<float> data(100000);
    EXPECT_EQ(failure_of([&] {
                if (world.rank() == 1) all->broadcast(std::as_writable_bytes(std::span(data)), 0);
                else all->all_reduce({data.data(), data.size()}, Reduction::sum);
              }),
              on_this_host("rank 1") + " failed: it called broadcast of 400000 bytes in group world where " +
                  on_this_host("rank 0") +
                  " called all_reduce of 400000 bytes; ranks must run the same engine on the same model");
  }
  MpiWorld world;
  const auto all = world.all();
  std::vector<float> data(16);
  const auto reduction = world.rank() == 1 ? Reduction::maximum : Reduction::sum;
  EXPECT_EQ(failure_of([&] { all->all_reduce({data.data(), data.size()}, reduction); }),
            on_this_host("rank 1") +
                " failed: it called all_reduce of 64 bytes (float32, maximum, root 0) in group world where " +
                on_this_host("rank 0") +
                " called all_reduce of 64 bytes (float32, sum, root 0); ranks must run the "
                "same engine on the same model");
}

TEST(MpiFailures, RanksThatFormOtherGroupsAreToldSo) {
  MpiWorld world;
  const std::vector<int> members = world.rank() == 1 ? std::vector{2, 1, 0} : std::vector{0, 1, 2};
  const auto all = world.group({"tensor", members});
  EXPECT_NE(failure_of([&] { all->barrier(); }).find("ranks must form the same groups in the same order"),
            std::string::npos);
}

TEST(MpiFailures, WhoSendsAnotherNumberOfBytesIsNamed) {
  {
    MpiWorld world;
    const auto pair = world.group({"pair", {0, 1}});
    if (world.rank() < 2) {
      const bool first = world.rank() == 0;
      std::vector<std::byte> from(first ? 8 : 12), to(8);
      const std::vector<std::size_t> counts = {first ? 4U : 8U, 4}, received = {4, 4};
      EXPECT_EQ(failure_of([&] {
                  pair->all_to_all(from, counts, to, received);
                  pair->barrier();  // the sender may learn it only now
                }),
                on_this_host("rank 1") + " failed: it sends " + on_this_host("rank 0") +
                    " another number of bytes than the 4 expected in all_to_all");
    }
  }
  MpiWorld world;
  const auto all = world.all();
  std::vector<std::byte> data(world.rank() == 0 ? 8 : 12);
  if (world.rank() == 0) all->send(data, 1);
  if (world.rank() == 2) return;
  EXPECT_EQ(failure_of([&] {
              if (world.rank() == 1) all->receive(data, 0);
              all->barrier();
            }),
            on_this_host("rank 0") + " failed: it sent 8 bytes in group world where " + on_this_host("rank 1") +
                " expects 12");
}

TEST(MpiFailures, AnotherMpisMpirunIsRefused) {
  ASSERT_EQ(::setenv("OMPI_COMM_WORLD_SIZE", "5", 1), 0);
  try {
    const MpiWorld world;
    ADD_FAILURE() << "of five ranks where there are three";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_STREQ(error.what(),
                 "mpirun (Open MPI) started 5 ranks, and MPI knows 3: use the mpirun of the MPI that Lamella was built "
                 "with, or srun --mpi=pmix");
  }
  ASSERT_EQ(::setenv("OMPI_COMM_WORLD_SIZE", "3", 1), 0);
}

TEST(MpiFailures, AHandshakeNamesAllWhoStayAway) {
  MpiWorld world;
  const auto all = world.all();
  if (world.rank() != 0) return;
  EXPECT_EQ(failure_of([&] { shake_hands(*all, Parts().list(), 200ms); }),
            on_this_host("rank 1") + " failed: it did not come to barrier of group world within 0.2 s; nor did " +
                on_this_host("rank 2"));
}

TEST(MpiFailures, AGroupMayOutliveItsWorld) {
  std::unique_ptr<Communicator> all;
  {
    MpiWorld world;
    all = world.all();
  }
  all->barrier();
}

TEST(MpiFailures,
     WhoIsNotThereAtTheStartIsNamed) {  // the last: what was sent to those who were absent still lies there
  int rank = 0;
  ASSERT_EQ(MPI_Comm_rank(MPI_COMM_WORLD, &rank), MPI_SUCCESS);
  if (rank == 1) return;
  EXPECT_EQ(failure_of([] { const MpiWorld world({.init_timeout = 300ms}); }),
            "rank 1 failed: it did not come to the start of group world within 0.3 s");
}

}  // namespace
}  // namespace lamella::comm::testing

int main(int argc, char** argv) {
  lamella::comm::testing::speak_for_all();
  ::testing::InitGoogleTest(&argc, argv);
  int threads = 0;
  if (MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &threads) != MPI_SUCCESS) return 1;
  const int result = RUN_ALL_TESTS();
  // All live, so that MPI ends, whatever the worlds have left.
  return MPI_Finalize() == MPI_SUCCESS ? result : 1;
}
