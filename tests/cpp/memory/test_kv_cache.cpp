#include "memory/kv_cache.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "seed.h"

namespace lamella::testing {
namespace {

constexpr std::int32_t none = KvBlockPool::none;

std::vector<std::int32_t> some_tokens(std::size_t count, std::int32_t first = 0) {
  std::vector<std::int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class KvCacheTest : public ::testing::Test {
 protected:
  void make(std::int64_t blocks, KvRetention retention) {
    pool_ = std::make_unique<KvBlockPool>(blocks);
    cache_ = std::make_unique<KvCache>(*pool_, std::move(retention), [this](std::span<const std::int32_t> blocks_left) {
      scrubbed_.insert(scrubbed_.end(), blocks_left.begin(), blocks_left.end());
    });
  }
  KvHolding holding() const { return KvCache::reserve(cache_->retention().windows.size(), 1000); }
  /// Runs a sequence through the cache and lets others share what it computed.
  KvHolding computed(const std::vector<std::int32_t>& tokens) {
    KvHolding held = holding();
    const auto count = static_cast<std::int64_t>(tokens.size());
    EXPECT_TRUE(cache_->hold(held, 0, count));
    while ((held.published + 1) * kv_block_tokens <= count)
      cache_->publish(held, std::span(tokens).subspan(static_cast<std::size_t>(held.published * 16), 16));
    cache_->leave(held, count, all_sound);
    return held;
  }

  std::unique_ptr<KvBlockPool> pool_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::int32_t> scrubbed_;
};

TEST(KvRetention, HoldsWhatAWindowAndTheStepsInFlightSpanWhereverTheyBegin) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 300; ++i) {
    const auto window = static_cast<std::int32_t>(1 + random() % 100);
    const auto in_flight = static_cast<std::int64_t>(1 + random() % 80);
    const KvRetention retention{.windows = {window}, .tokens_in_flight = in_flight};
    std::int64_t most = 0;
    for (std::int64_t position = 0; position < 300; ++position) {
      // The first block whose last token the token at `position` still sees.
      std::int64_t first = 0;
      while (16 * first + 15 <= position - window) ++first;
      ASSERT_EQ(retention.first_place(0, position), first) << "window " << window << ", position " << position;
      most = std::max(most, (position + in_flight - 1) / 16 + 1 - first);
    }
    ASSERT_EQ(retention.most_blocks(100000), most) << "window " << window << ", " << in_flight << " in flight";
    ASSERT_EQ(retention.most_blocks(16), 1);
  }
}

TEST(KvRetention, SaysHowManyTokensFitSoManyBlocks) {
  for (const KvRetention& retention : {KvRetention{}, KvRetention{.windows = {0, 20}, .tokens_in_flight = 16},
                                       KvRetention{.windows = {0, 40, 20}, .tokens_in_flight = 8}}) {
    for (std::int64_t blocks = 0; blocks < 60; ++blocks) {
      const std::int64_t fit = retention.tokens_within(blocks, 5000);
      EXPECT_LE(retention.most_blocks(fit), blocks);
      EXPECT_GT(retention.most_blocks(fit + 1), blocks);
      EXPECT_EQ(retention.tokens_within(blocks, 7), retention.most_blocks(7) <= blocks ? 7 : 0);
    }
  }
  EXPECT_EQ((KvRetention{.windows = {20}, .tokens_in_flight = 16}.tokens_within(100, 1'000'000)), 1'000'000);
}

TEST_F(KvCacheTest, TakesAllOrNothingInAllGroups) {
  make(7, {.windows = {0, 32}, .tokens_in_flight = 16});
  KvHolding first = holding(), second = holding();
  EXPECT_TRUE(cache_->hold(first, 0, 33));  // three places in each
  EXPECT_EQ(pool_->used(), 6);
  EXPECT_EQ(cache_->missing(second, 0, 1), 2);
  EXPECT_FALSE(cache_->hold(second, 0, 1));
  EXPECT_EQ(pool_->used(), 6);
  EXPECT_TRUE(second.groups[0].empty() && second.groups[1].empty());
  cache_->release(first, all_sound);
  EXPECT_EQ(pool_->used(), 0);
}

TEST_F(KvCacheTest, AWindowGivesBackWhatItHasLeftAndTheFullGroupNothing) {
  make(30, {.windows = {0, 20}, .tokens_in_flight = 16});
  KvHolding held = holding();
  for (std::int64_t begin = 0; begin < 160; begin += 16) {
    ASSERT_TRUE(cache_->hold(held, begin, begin + 16));
    cache_->leave(held, begin + 16, 0);
  }
  EXPECT_EQ(held.groups[0].size(), 10U);
  ASSERT_EQ(held.groups[1].size(), 10U);
  // The token at 160 sees 141 to 160: places 8 and, once it is there, 10.
  for (std::size_t place = 0; place < 10; ++place) {
    EXPECT_NE(held.groups[0][place], none);
    EXPECT_EQ(held.groups[1][place] != none, place >= 8) << place;
  }
  EXPECT_EQ(pool_->used(), 10 + 2);
  EXPECT_EQ(scrubbed_.size(), 8U);  // nobody said that they were sound
  cache_->release(held, all_sound);
  EXPECT_EQ(scrubbed_.size(), 8U);
  EXPECT_EQ(pool_->used(), 0);
}

TEST_F(KvCacheTest, ReusesABeginningWhereEveryGroupKeepsWhatIsReadBehindIt) {
  make(40, {.windows = {0, 20}, .tokens_in_flight = 200});
  const std::vector<std::int32_t> tokens = some_tokens(100);
  KvHolding held = computed(tokens);
  cache_->release(held, all_sound);
  KvHolding again = holding();
  // Behind 96 tokens the window reads places 4 and 5, behind 48 places 1 and 2: the sequence gave all but the last two
  // back, and they are kept as long as nobody needs the room.
  EXPECT_EQ(cache_->reuse(tokens, 6, again), 6);
  EXPECT_EQ(again.groups[1][3], none);
  EXPECT_NE(again.groups[1][4], none);
  EXPECT_EQ(pool_->used(), 6 + 2);
  cache_->release(again, all_sound);
  EXPECT_EQ(cache_->reuse(tokens, 3, again), 3);
  EXPECT_EQ(again.groups[1][0], none);
  EXPECT_NE(again.groups[1][1], none);
  cache_->release(again, all_sound);
  // The room of what was not used for longest is needed: the windows' first blocks, which were given back first, go.
  std::vector<std::int32_t> others;
  ASSERT_TRUE(pool_->take(40 - pool_->kept() + 2, others));
  KvHolding third = holding();
  const std::int64_t reused = cache_->reuse(tokens, 6, third);
  EXPECT_EQ(reused, 6);  // what a sequence that goes on reads is the youngest
  cache_->release(third, all_sound);
  pool_->give_back(others);
}

TEST_F(KvCacheTest, ASequenceWhoseWindowLeftUnseenBlocksSharesNothingMore) {
  make(40, {.windows = {20}, .tokens_in_flight = 16});
  const std::vector<std::int32_t> tokens = some_tokens(80);
  KvHolding held = holding();
  for (std::int64_t begin = 0; begin < 80; begin += 16) {
    ASSERT_TRUE(cache_->hold(held, begin, begin + 16));
    cache_->leave(held, begin + 16, 0);  // a prompt in chunks: no row of logits was looked at
  }
  for (std::int64_t place = 0; place < 5; ++place)
    cache_->publish(held, std::span(tokens).subspan(static_cast<std::size_t>(place * 16), 16));
  cache_->release(held, all_sound);
  EXPECT_EQ(pool_->kept(), 0);
}

TEST_F(KvCacheTest, TruncationKeepsWhatIsBeforeAndNeverWritesToSharedBlocks) {
  make(40, {.windows = {0}});
  const std::vector<std::int32_t> tokens = some_tokens(70);
  KvHolding held = computed(tokens);
  EXPECT_EQ(held.published, 4);
  EXPECT_EQ(cache_->truncate(held, std::span(tokens).first(66), all_sound), 66);  // its last block is nobody else's
  EXPECT_EQ(held.groups[0].size(), 5U);
  EXPECT_EQ(cache_->truncate(held, std::span(tokens).first(50), all_sound), 48);  // place 3 may be shared
  EXPECT_EQ(held.groups[0].size(), 3U);
  EXPECT_EQ(held.published, 3);
  // What it computes now, others find behind what it kept.
  std::vector<std::int32_t> other = tokens;
  other.resize(48);
  for (const std::int32_t token : some_tokens(16, 500)) other.push_back(token);
  ASSERT_TRUE(cache_->hold(held, 48, 64));
  cache_->publish(held, std::span(other).subspan(48, 16));
  KvHolding third = holding();
  EXPECT_EQ(cache_->reuse(other, 4, third), 4);
  EXPECT_EQ(third.groups[0], held.groups[0]);
  cache_->release(third, all_sound);
  cache_->release(held, all_sound);
  EXPECT_EQ(pool_->used(), 0);
}

TEST_F(KvCacheTest, TruncationToWhereAWindowHasLeftKeepsNothing) {
  make(40, {.windows = {0, 20}, .tokens_in_flight = 200});
  const std::vector<std::int32_t> tokens = some_tokens(100);
  KvHolding held = computed(tokens);
  KvHolding near = computed(tokens);
  // Behind 99 tokens the window reads place 5 on, as it does behind 100; behind 98 it reads place 4.
  EXPECT_EQ(cache_->truncate(near, std::span(tokens).first(99), all_sound), 99);
  EXPECT_EQ(cache_->truncate(near, std::span(tokens).first(98), all_sound), 0);
  EXPECT_EQ(cache_->truncate(held, std::span(tokens).first(60), all_sound), 0);
  for (const std::vector<std::int32_t>& places : held.groups) EXPECT_TRUE(places.empty());
  cache_->release(near, all_sound);
  EXPECT_EQ(pool_->used(), 0);
}

}  // namespace
}  // namespace lamella::testing
