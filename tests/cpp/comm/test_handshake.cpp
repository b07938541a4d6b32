// Ranks that do not run the same, or do not come, are told so before the first collective: among threads.
#include <gtest/gtest.h>

#include "comm/local_world.h"
#include "handshakes.h"
#include "ranks.h"

namespace lamella::comm::testing {
namespace {

using namespace std::chrono_literals;

TEST(Handshake, OfRanksThatRunTheSameSaysNothing) {
  LocalWorld world(3);
  const Ends ends = world.all();
  run_sound_ranks(3, [&](int rank) {
    Communicator& own = *ends[static_cast<std::size_t>(rank)];
    shake_hands(own, Parts().list());
    own.barrier();
  });
}

TEST(Handshake, NamesWhoDiffersInWhat) {
  LocalWorld world(3);
  const Ends ends = world.all();
  const auto thrown = run_ranks(3, [&](int rank) {
    Communicator& own = *ends[static_cast<std::size_t>(rank)];
    shake_hands(own, differing_parts(rank).list());
  });
  for (const auto& one : thrown) EXPECT_EQ(failure_text(one), told_of_differing_parts);
  run_sound_ranks(3, [&](int rank) { ends[static_cast<std::size_t>(rank)]->barrier(); });  // and they may go on
}

TEST(Handshake, NamesPartsThatOnlySomeHave) {
  LocalWorld world(4);
  const Ends ends = world.group({"data", {3, 0, 1, 2}});
  HandshakePart other;  // outside the lambda: there gcc 12 sees an overflow in the string's move
  other.label = std::string(100, 'x');
  other.label += '\n';
  const auto thrown = run_ranks(4, [&](int member) {
    const Parts parts;
    std::vector<HandshakePart> list = parts.list();
    if (member == 2 || member == 3) list.pop_back();
    if (member == 1) list.push_back(other);
    shake_hands(*ends[static_cast<std::size_t>(member)], list);
  });
  for (const auto& one : thrown) {
    EXPECT_NE(failure_text(one).find("beside rank 3, "), std::string::npos);
    EXPECT_NE(failure_text(one).find("ranks 1 and 2 differ in \"options\""), std::string::npos);
    EXPECT_NE(failure_text(one).find("rank 0 differs in \"" + std::string(31, 'x') + "\""), std::string::npos);
  }
}

TEST(Handshake, NamesAllWhoStayAway) {
  LocalWorld world(4);
  const Ends ends = world.all();
  const auto thrown = run_ranks(4, [&](int rank) {
    if (rank % 2 == 0) shake_hands(*ends[static_cast<std::size_t>(rank)], Parts().list(), 100ms);
  });
  for (const int rank : {0, 2})
    EXPECT_EQ(failure_text(thrown[static_cast<std::size_t>(rank)]),
              "rank 1 failed: it did not come to barrier of group world within 0.1 s; nor did rank 3");
}

}  // namespace
}  // namespace lamella::comm::testing
