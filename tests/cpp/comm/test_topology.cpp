#include <gtest/gtest.h>

#include <set>

#include "comm/topology.h"
#include "lamella/error.h"

namespace lamella::comm::testing {
namespace {

TEST(Topology, TensorRanksStandSideBySideAndStagesFarApart) {
  const Topology topology({.tensor = 2, .pipeline = 2, .data = 3});
  EXPECT_EQ(topology.group_of(GroupKind::tensor, 5).ranks, (std::vector<int>{4, 5}));
  EXPECT_EQ(topology.group_of(GroupKind::data, 3).ranks, (std::vector<int>{1, 3, 5}));
  EXPECT_EQ(topology.group_of(GroupKind::pipeline, 3).ranks, (std::vector<int>{3, 9}));
  EXPECT_EQ(topology.index_in(GroupKind::pipeline, 9), 1);
  EXPECT_EQ(topology.index_in(GroupKind::data, 9), 1);
  EXPECT_EQ(topology.index_in(GroupKind::tensor, 9), 1);
}

TEST(Topology, ExpertsAreDealtOutToAStage) {  // the paper's Table II, 47B: MP 8, EP 128, expert slicing 2 on 256 GPUs
  const Topology topology({.tensor = 8, .data = 32, .expert = 128, .expert_slices = 2});
  EXPECT_EQ(topology.ranks(), 256);
  EXPECT_EQ(topology.group_of(GroupKind::expert_slice, 5).ranks, (std::vector<int>{4, 5}));
  EXPECT_EQ(topology.group_of(GroupKind::expert, 5).ranks.size(), 128U);
  EXPECT_EQ(topology.group_of(GroupKind::expert, 5).ranks[1], 3);
  EXPECT_EQ(topology.index_in(GroupKind::expert, 5), 2);
}

TEST(Topology, GroupsOfAKindHaveEveryRankOnce) {
  for (const ParallelSizes& sizes :
       {ParallelSizes{}, ParallelSizes{.tensor = 3, .pipeline = 2, .data = 2, .expert = 3, .expert_slices = 2},
        ParallelSizes{.tensor = 4, .pipeline = 3, .data = 2, .expert = 2, .expert_slices = 2}}) {
    const Topology topology(sizes);
    for (const GroupKind kind : group_kinds) {
      std::multiset<int> seen;
      for (const GroupMembers& group : topology.groups(kind)) {
        EXPECT_EQ(group.name, to_string(kind));
        for (std::size_t i = 0; i < group.ranks.size(); ++i) {
          seen.insert(group.ranks[i]);
          EXPECT_EQ(topology.index_in(kind, group.ranks[i]), static_cast<int>(i));
          EXPECT_EQ(topology.group_of(kind, group.ranks[i]).ranks, group.ranks);
        }
      }
      for (int rank = 0; rank < topology.ranks(); ++rank) EXPECT_EQ(seen.count(rank), 1U) << to_string(kind);
    }
  }
}

std::string refusal(const ParallelSizes& sizes) {
  try {
    validate(sizes);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "accepted";
}

TEST(Topology, SizesThatDoNotFitAreRefusedByName) {
  EXPECT_EQ(refusal({.tensor = 0}), "tensor_parallel_size is 0; expected 1 to 65536");
  EXPECT_EQ(refusal({.tensor = 1024, .pipeline = 1024}),
            "tensor_parallel_size 1024 x pipeline_parallel_size 1024 x data_parallel_size 1 are more than 65536 ranks");
  EXPECT_EQ(refusal({.tensor = 4, .expert_slices = 3}),
            "expert_slicing_size is 3; expected a divisor of the 4 ranks of a stage (tensor_parallel_size x "
            "data_parallel_size)");
  EXPECT_EQ(refusal({.tensor = 4, .data = 3, .expert = 5, .expert_slices = 2}),
            "expert_parallel_size is 5; expected a divisor of the 6 ranks of a stage (tensor_parallel_size x "
            "data_parallel_size / expert_slicing_size), for example 3");
  EXPECT_EQ(refusal({.tensor = 2, .pipeline = 3, .data = 4, .expert = 8}), "accepted");
}

TEST(Topology, PrintsARankALine) {
  EXPECT_EQ(to_table(Topology({.tensor = 2, .pipeline = 2})),
            "rank    tensor        pipeline    \n"
            "0       0 of 2        0 of 2      \n"
            "1       1 of 2        0 of 2      \n"
            "2       0 of 2        1 of 2      \n"
            "3       1 of 2        1 of 2      \n");
}

}  // namespace
}  // namespace lamella::comm::testing
