// Every number of heads, KV heads and ranks up to a bound: what the shards must have in common.
#include <gtest/gtest.h>

#include "lamella/error.h"
#include "model/shard.h"
#include "specs.h"

namespace lamella::testing {
namespace {

AttentionSpec attention_of(int heads, int kv_heads) {
  AttentionSpec attention;
  attention.heads = heads;
  attention.kv_heads = kv_heads;
  attention.head_dim = 8;
  return attention;
}

TEST(Shard, EveryHeadStandsOnOneRankWithItsKvHead) {
  for (int kv_heads = 1; kv_heads <= 12; ++kv_heads) {
    for (int group = 1; group <= 9; ++group) {
      const AttentionSpec attention = attention_of(kv_heads * group, kv_heads);
      for (int ranks = 1; ranks <= attention.heads; ++ranks) {
        SCOPED_TRACE(::testing::Message()
                     << attention.heads << " heads, " << kv_heads << " KV heads, " << ranks << " ranks");
        std::int64_t next = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const HeadShard shard = shard_heads(attention, rank, ranks);
          ASSERT_EQ(shard.heads.begin, next);
          next = shard.heads.end;
          ASSERT_GT(shard.heads.size(), 0);
          const auto kept = static_cast<std::int64_t>(shard.kv_heads.size());
          ASSERT_EQ(shard.heads.size() % kept, 0);
          for (std::int64_t i = 0; i < shard.heads.size(); ++i)
            ASSERT_EQ(shard.kv_heads[static_cast<std::size_t>(i / (shard.heads.size() / kept))],
                      (shard.heads.begin + i) / group);
          if (ranks <= kv_heads) {
            ASSERT_EQ(shard.heads.size(), kept * group);  // none twice
          }
        }
        ASSERT_EQ(next, attention.heads);
      }
    }
  }
}

TEST(Shard, TwentyFiveHeadsAreThirteenAndTwelve) {  // GPT-2 XL on two ranks
  const AttentionSpec attention = attention_of(25, 25);
  EXPECT_EQ(shard_heads(attention, 0, 2).heads, (ShardRange{0, 13}));
  EXPECT_EQ(shard_heads(attention, 1, 2).heads, (ShardRange{13, 25}));
}

TEST(Shard, FewKvHeadsStandOnSeveralRanks) {
  const AttentionSpec attention = attention_of(12, 2);
  EXPECT_EQ(shard_heads(attention, 0, 4), (HeadShard{{0, 3}, {0}}));
  EXPECT_EQ(shard_heads(attention, 3, 4), (HeadShard{{9, 12}, {1}}));
  EXPECT_EQ(shard_heads(attention, 1, 3), (HeadShard{{4, 8}, {0, 1}}));  // two heads of each group
  EXPECT_EQ(shard_heads(attention_of(10, 2), 1, 3), (HeadShard{{4, 7}, {0, 1, 1}}));  // one of one, two of the other
}

TEST(Shard, WidthsAreCutAtWholePanelsWhereEveryRankHasOne) {
  for (const std::int64_t width : {1, 63, 64, 65, 128, 200, 1600, 6400, 11008, 50257}) {
    for (int ranks = 1; ranks <= 9 && ranks <= width; ++ranks) {
      std::int64_t next = 0, least = width, most = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const ShardRange share = shard_width(width, rank, ranks);
        ASSERT_EQ(share.begin, next);
        next = share.end;
        if (width > 64 * (ranks - 1)) {
          ASSERT_EQ(share.begin % 64, 0);
        }
        least = std::min(least, share.size());
        most = std::max(most, share.size());
      }
      ASSERT_EQ(next, width);
      ASSERT_GT(least, 0);
      ASSERT_LT(most - least, 128);
    }
  }
}

TEST(Shard, MoreRanksThanHeadsAreRefusedWithTheMostThatWork) {
  ModelSpec spec = llama_like();
  const int heads = spec.layers[0].attention.heads;
  EXPECT_NO_THROW(require_shards(spec, heads));
  spec.layers[1].attention.heads = heads - 1;
  try {
    require_shards(spec, heads);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_EQ(std::string(error.what()), "tensor_parallel_size is " + std::to_string(heads) +
                                             ", but the query heads of layer 1 are " + std::to_string(heads - 1) +
                                             "; expected at most " + std::to_string(heads - 1) + " for this model");
  }
}

TEST(Shard, AMixtureIsCutAsFarAsItsNarrowestExpert) {
  ModelSpec spec = qwen_moe_like();
  EXPECT_NO_THROW(require_shards(spec, 6));
  spec.layers[1].mlp.experts->shared_intermediate = 3;
  try {
    require_shards(spec, 4);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("the inner width of layer 1's experts is 3"), std::string::npos)
        << error.what();
  }
}

TEST(Shard, NormsOfAllHeadsTogetherAreRefused) {
  EXPECT_NO_THROW(require_shards(normed_heads(1, true), 1));
  EXPECT_NO_THROW(require_shards(normed_heads(1, false), 2));
  try {
    require_shards(normed_heads(1, true), 2);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported_model);
    EXPECT_NE(std::string(error.what()).find("layer 0 norms the queries of all heads together"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace lamella::testing
