#include <gtest/gtest.h>

#include <set>

#include "memory/kv_pool.h"
#include "plan/plans.h"

namespace lamella::testing {
namespace {

TEST(KvBlockPool, HandsOutEachBlockOnceAndTakesAllBack) {
  KvBlockPool pool(10);
  std::vector<std::int32_t> a, b;
  ASSERT_TRUE(pool.take(4, a));
  ASSERT_TRUE(pool.take(6, b));
  EXPECT_EQ(pool.used(), 10);
  std::set<std::int32_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  EXPECT_EQ(all.size(), 10U);
  pool.give_back(a);
  EXPECT_EQ(pool.used(), 6);
  EXPECT_TRUE(a.empty());
}

TEST(KvBlockPool, TakesAllOrNothing) {
  KvBlockPool pool(3);
  std::vector<std::int32_t> blocks;
  EXPECT_FALSE(pool.take(4, blocks));
  EXPECT_TRUE(blocks.empty());
  EXPECT_EQ(pool.used(), 0);
}

TEST(KvBlockPool, CountsBlocksForTokens) {
  EXPECT_EQ(KvBlockPool::blocks_for(0), 0);
  EXPECT_EQ(KvBlockPool::blocks_for(1), 1);
  EXPECT_EQ(KvBlockPool::blocks_for(16), 1);
  EXPECT_EQ(KvBlockPool::blocks_for(17), 2);
}

TEST(KvMemory, ClearsOnlyTheNamedBlocks) {
  const Plan plan = plan_of(llama_like());
  KvMemory memory(plan, "test");
  const std::size_t bytes = memory.total_bytes();
  EXPECT_EQ(bytes, 2U * 12 * 2 * 2 * 16 * 6 * 4);
  std::byte* layer = memory.data("kv.1");
  const std::size_t block = 2 * 2 * 16 * 6 * 4;
  std::fill_n(layer, 12 * block, std::byte{7});
  memory.clear({3});
  EXPECT_EQ(layer[3 * block - 1], std::byte{7});
  EXPECT_EQ(layer[3 * block], std::byte{0});
  EXPECT_EQ(layer[4 * block - 1], std::byte{0});
  EXPECT_EQ(layer[4 * block], std::byte{7});
}

}  // namespace
}  // namespace lamella::testing
