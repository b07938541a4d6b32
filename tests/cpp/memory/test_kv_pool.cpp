#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "memory/kv_pool.h"
#include "plan/plans.h"
#include "seed.h"

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

std::vector<std::int32_t> tokens_of(std::int32_t first, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = first + static_cast<std::int32_t>(i % 5);
  return tokens;
}

/// Takes, publishes and gives back the blocks of these tokens.
void run_through(KvBlockPool& pool, const std::vector<std::int32_t>& tokens) {
  std::vector<std::int32_t> blocks;
  ASSERT_TRUE(pool.take(static_cast<std::int64_t>(tokens.size()) / 16, blocks));
  PrefixId prefix = empty_prefix;
  for (std::size_t i = 0; i < blocks.size(); ++i)
    prefix = pool.publish(blocks[i], prefix, std::span(tokens).subspan(16 * i, 16));
  pool.give_back(blocks);
}

TEST(KvBlockPool, KeepsPublishedBlocksForEqualBeginnings) {
  KvBlockPool pool(10);
  run_through(pool, tokens_of(0, 48));
  EXPECT_EQ(pool.kept(), 3);
  EXPECT_EQ(pool.available(), 10);
  std::vector<std::int32_t> tokens = tokens_of(0, 48), blocks;
  pool.reuse(tokens, 3, blocks);
  EXPECT_EQ(blocks.size(), 3U);
  EXPECT_EQ(pool.used(), 3);
  EXPECT_EQ(pool.kept(), 0);
  tokens[20] = 77;  // in the second block
  std::vector<std::int32_t> others;
  pool.reuse(tokens, 3, others);
  ASSERT_EQ(others.size(), 1U);
  EXPECT_EQ(others[0], blocks[0]);
  EXPECT_EQ(pool.used(), 3);  // one of them with two holders
  pool.give_back(blocks);
  EXPECT_EQ(pool.used(), 1);
  pool.give_back(others);
  EXPECT_EQ(pool.used(), 0);
  // Equal tokens behind another beginning are another block.
  pool.reuse(tokens_of(1, 32), 2, others);
  EXPECT_TRUE(others.empty());
}

TEST(KvBlockPool, ForgetsWhatWasNotUsedForLongestAndEndsBeforeBeginnings) {
  KvBlockPool pool(6);
  run_through(pool, tokens_of(0, 48));
  run_through(pool, tokens_of(100, 48));
  const auto kept = [&](std::int32_t first) {
    std::vector<std::int32_t> blocks;
    pool.reuse(tokens_of(first, 48), 3, blocks);
    const std::size_t count = blocks.size();
    pool.give_back(blocks);
    return count;
  };
  EXPECT_EQ(kept(0), 3U);  // which makes 100 the one to go
  std::vector<std::int32_t> taken;
  ASSERT_TRUE(pool.take(2, taken));
  EXPECT_EQ(kept(100), 1U);
  EXPECT_EQ(kept(0), 3U);
  ASSERT_TRUE(pool.take(4, taken));
  EXPECT_EQ(pool.kept(), 0);
  EXPECT_FALSE(pool.take(1, taken));
  pool.give_back(taken);
  EXPECT_EQ(pool.used(), 0);
}

TEST(KvBlockPool, RandomTrafficNeverMixesContentsUp) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << seed);
  std::mt19937_64 random(seed);
  const auto draw = [&](std::uint64_t most) { return static_cast<std::size_t>(random() % (most + 1)); };
  constexpr std::size_t total = 24;
  KvBlockPool pool(total);
  // What a block holds: all tokens up to its end.
  std::vector<std::vector<std::int32_t>> content(total);
  struct Holder {
    std::vector<std::int32_t> tokens, blocks;
    PrefixId prefix = empty_prefix;
  };
  std::vector<Holder> holders;
  std::size_t reused = 0;
  for (int i = 0; i < 20000; ++i) {
    if (draw(1) == 0 && holders.size() < 8) {
      Holder holder;
      const std::size_t length = 16 * (1 + draw(4));
      for (std::size_t t = 0; t < length; ++t)
        holder.tokens.push_back(t % 16 == 0 ? static_cast<std::int32_t>(draw(2)) : 1);
      holder.prefix = pool.reuse(holder.tokens, static_cast<std::int64_t>(draw(5)), holder.blocks);
      reused += holder.blocks.size();
      for (std::size_t b = 0; b < holder.blocks.size(); ++b)
        ASSERT_TRUE(std::ranges::equal(content[static_cast<std::size_t>(holder.blocks[b])],
                                       std::span(holder.tokens).first(16 * (b + 1))));
      const std::size_t has = holder.blocks.size();
      if (!pool.take(static_cast<std::int64_t>(length / 16 - has), holder.blocks)) {
        pool.give_back(holder.blocks);
        continue;
      }
      for (std::size_t b = has; b < holder.blocks.size(); ++b) {
        const auto block = static_cast<std::size_t>(holder.blocks[b]);
        for (const Holder& other : holders) ASSERT_EQ(std::ranges::count(other.blocks, holder.blocks[b]), 0);
        content[block].assign(holder.tokens.begin(), holder.tokens.begin() + static_cast<std::ptrdiff_t>(16 * (b + 1)));
        holder.prefix = pool.publish(holder.blocks[b], holder.prefix, std::span(holder.tokens).subspan(16 * b, 16));
      }
      holders.push_back(std::move(holder));
    } else if (!holders.empty()) {
      const std::size_t which = draw(holders.size() - 1);
      pool.give_back(holders[which].blocks);
      holders.erase(holders.begin() + static_cast<std::ptrdiff_t>(which));
    }
    std::set<std::int32_t> held;
    for (const Holder& holder : holders) held.insert(holder.blocks.begin(), holder.blocks.end());
    ASSERT_EQ(pool.used(), static_cast<std::int64_t>(held.size()));
  }
  EXPECT_GT(reused, 1000U);
  for (Holder& holder : holders) pool.give_back(holder.blocks);
  EXPECT_EQ(pool.used(), 0);
}

TEST(KvMemory, ClearsOnlyTheNamedBlocks) {
  const Plan plan = plan_of(llama_like());
  KvMemory memory(plan, "test");
  const std::size_t bytes = memory.total_bytes();
  EXPECT_EQ(bytes, 2U * 12 * 2 * 2 * 16 * 16 * 4);
  std::byte* layer = memory.data("kv.1");
  const std::size_t block = 2 * 2 * 16 * 16 * 4;  // heads of 6 are padded to 16
  std::fill_n(layer, 12 * block, std::byte{7});
  memory.clear(std::vector<std::int32_t>{3});
  EXPECT_EQ(layer[3 * block - 1], std::byte{7});
  EXPECT_EQ(layer[3 * block], std::byte{0});
  EXPECT_EQ(layer[4 * block - 1], std::byte{0});
  EXPECT_EQ(layer[4 * block], std::byte{7});
}

}  // namespace
}  // namespace lamella::testing
