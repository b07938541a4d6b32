// Every collective over drawn sizes, types and groups against plain loops, among processes: run by mpirun with a number
// of ranks.
#include <gtest/gtest.h>

#include <exception>
#include <memory>
#include <thread>

#include "../drawn_calls.h"
#include "../handshakes.h"
#include "comm/launch.h"
#include "comm/mpi_world.h"
#include "comm/topology.h"
#include "lamella/error.h"
#include "mpi_main.h"

namespace lamella::comm::testing {
namespace {

std::unique_ptr<MpiWorld> world;

/// A new group of all for each test, drawn with the same dice on all ranks.
class Mpi : public ::testing::Test {
 protected:
  const std::unique_ptr<Communicator> all_ = world->all();
  const std::uint64_t seed_ = common_seed(*all_);
  const ::testing::ScopedTrace trace_{__FILE__, __LINE__, ::testing::Message() << "LAMELLA_SEED=" << seed_};
  Random random_{seed_};
};

TEST_F(Mpi, CollectivesGiveWhatPlainLoopsGive) {
  run_calls(*all_, Calls(random_, world->size(), lamella::testing::full_stage() ? 600 : 120));
}

TEST_F(Mpi, LaunchersTellWhatMpiKnows) {
  const Launch launch = launch_of_process();
  EXPECT_EQ(launch.launcher, Launcher::open_mpi);
  EXPECT_EQ(launch.rank, world->rank());
  EXPECT_EQ(launch.size, world->size());
  EXPECT_GE(launch.local_rank, 0);  // mpirun may deal ranks out to cores in any order
  EXPECT_LT(launch.local_rank, launch.local_size);
  EXPECT_EQ(launch.local_size, world->size());
}

/// This rank's ends of every group of a kind, and of those only: the others are null.
std::unique_ptr<Communicator> end_of(const Topology& topology, GroupKind kind) {
  std::unique_ptr<Communicator> own;
  for (const GroupMembers& members : topology.groups(kind))
    if (auto end = world->group(members)) own = std::move(end);
  return own;
}

TEST_F(Mpi, GroupsOfATopologyDoNotMeet) {
  ParallelSizes sizes{.tensor = world->size()};
  if (world->size() % 2 == 0) sizes = {.tensor = 2, .pipeline = world->size() / 2};
  const Topology topology(sizes);
  const auto tensor = end_of(topology, GroupKind::tensor), pipeline = end_of(topology, GroupKind::pipeline);
  ASSERT_EQ(tensor->size(), sizes.tensor);
  ASSERT_EQ(pipeline->size(), sizes.pipeline);
  const Calls in_tensor(random_, sizes.tensor, 20), in_pipeline(random_, sizes.pipeline, 20);
  for (std::size_t i = 0; i < 20; i += 5) {
    run_calls(*tensor, in_tensor, i, i + 5);
    run_calls(*pipeline, in_pipeline, i, i + 5);
  }
}

TEST_F(Mpi, ThreadsMeetInGroupsOfTheirOwn) {
  std::vector<int> reversed;
  for (int rank = world->size() - 1; rank >= 0; --rank) reversed.push_back(rank);
  const auto other = world->group({"reversed", reversed});
  const Calls here(random_, world->size(), 40), there(random_, world->size(), 40);
  std::exception_ptr thrown;
  std::thread thread([&] {
    try {
      run_calls(*other, there);
    } catch (...) {
      thrown = std::current_exception();
    }
  });
  run_calls(*all_, here);
  thread.join();
  if (thrown) std::rethrow_exception(thrown);
}

/// A large message leaves though its sender does nothing more than wait for something else, or nothing at all.
TEST_F(Mpi, MessagesLeaveWhileTheirSenderIsBusy) {
  if (world->size() < 2) return;
  std::vector<float> data(std::size_t{1} << 21U, static_cast<float>(world->rank()));
  if (world->rank() == 0) {
    all_->send(std::as_bytes(std::span(data)), 1);
    std::fill(data.begin(), data.end(), -1.0F);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  if (world->rank() == 1) {
    const auto begin = std::chrono::steady_clock::now();
    all_->receive(std::as_writable_bytes(std::span(data)), 0);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(250));
    EXPECT_EQ(data, std::vector<float>(data.size(), 0.0F));
  }
  all_->barrier();
}

TEST_F(Mpi, MessagesMayBeLongerThanMpiCounts) {
  if (!lamella::testing::full_stage() || world->size() != 2) GTEST_SKIP() << "2 ranks and 9 GB: full stage only";
  const std::size_t size = (std::size_t{1} << 31U) + 12345;
  std::vector<std::byte> data(size, std::byte{static_cast<unsigned char>(7 + world->rank())});
  data[size - 1] = std::byte{3};
  all_->broadcast(data, 1);
  EXPECT_EQ(data[0], std::byte{8});
  EXPECT_EQ(data[size - 2], std::byte{8});
  data[size - 2] = std::byte{42};
  if (world->rank() == 0) all_->send(data, 1);
  else all_->receive(data, 0);
  EXPECT_EQ(data[size - 2], std::byte{42});
}

TEST_F(Mpi, HandshakesNameWhoDiffersInWhat) {
  shake_hands(*all_, Parts().list());
  if (world->size() != 3) return;
  try {
    shake_hands(*all_, differing_parts(world->rank()).list());
    FAIL() << "of ranks that differ";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::rank_failed);
    EXPECT_EQ(error.what(), told_of_differing_parts);
  }
  all_->barrier();
}

}  // namespace
}  // namespace lamella::comm::testing

int main(int argc, char** argv) {
  namespace ours = lamella::comm::testing;
  lamella::comm::testing::speak_for_all();
  ::testing::InitGoogleTest(&argc, argv);
  try {
    ours::world = std::make_unique<lamella::comm::MpiWorld>();
    const int result = RUN_ALL_TESTS();
    ours::world.reset();
    return result;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
