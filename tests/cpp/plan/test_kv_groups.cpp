#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "plan/kv_groups.h"
#include "plan/plan.h"
#include "plan/verify.h"
#include "plans.h"
#include "seed.h"

namespace lamella::testing {
namespace {

ModelSpec with_windows(const std::vector<std::int32_t>& windows) {
  ModelSpec spec = llama_like(static_cast<int>(windows.size()));
  for (std::size_t i = 0; i < windows.size(); ++i) spec.layers[i].attention.window = windows[i];
  return spec;
}

TEST(KvGroups, OneRetentionIsOneGroupWithASlotALayer) {
  for (const std::int32_t window : {0, 20}) {
    const KvGroups groups = kv_groups(with_windows({window, window, window}), 100);
    EXPECT_EQ(groups.windows, std::vector{window});
    EXPECT_EQ(groups.slots, 3U);
    for (std::uint32_t i = 0; i < 3; ++i) EXPECT_EQ(groups.layers[i].slot, i);
  }
}

TEST(KvGroups, AWindowThatNoSequenceOutgrowsIsNone) {
  EXPECT_EQ(kv_groups(with_windows({0, 64}), 64).windows, std::vector{0});
  EXPECT_EQ(kv_groups(with_windows({0, 64}), 65).windows, (std::vector{0, 64}));
  EXPECT_EQ(binding_window({.window = 64}, 64), 0);
  EXPECT_EQ(binding_window({.window = 64}, 65), 64);
}

TEST(KvGroups, AlternatingLayersShareTheirSlots) {  // GPT-Neo's
  const KvGroups groups = kv_groups(with_windows({0, 8, 0, 8}), 100);
  EXPECT_EQ(groups.windows, (std::vector{0, 8}));
  EXPECT_EQ(groups.slots, 2U);
  EXPECT_EQ(groups.layers[2].group, 0U);
  EXPECT_EQ(groups.layers[2].slot, 1U);
  EXPECT_EQ(groups.layers[3].group, 1U);
  EXPECT_EQ(groups.layers[3].slot, 1U);
}

TEST(KvGroups, LayersOfOneRetentionAreSpreadWhereThatLeavesNoPlaceEmpty) {  // three windows for every full layer
  const KvGroups groups = kv_groups(with_windows({8, 8, 8, 0, 8, 8, 8, 0}), 100);
  EXPECT_EQ(groups.windows, (std::vector{0, 8, 8, 8}));
  EXPECT_EQ(groups.slots, 2U);
}

TEST(KvGroups, EveryLayerHasAPlaceOfItsOwnAmongNotTooManyGroups) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::int32_t> windows(1 + random() % 40);
    const std::uint64_t kinds = 1 + random() % 4;
    for (std::int32_t& window : windows) window = static_cast<std::int32_t>(random() % kinds * 10);
    const KvGroups groups = kv_groups(with_windows(windows), 1000);
    ASSERT_LE(groups.windows.size(), most_kv_groups);
    std::set<std::pair<std::uint32_t, std::uint32_t>> places;
    for (std::size_t layer = 0; layer < windows.size(); ++layer) {
      const KvGroups::Place place = groups.layers[layer];
      ASSERT_LT(place.slot, groups.slots);
      ASSERT_EQ(groups.windows.at(place.group), windows[layer]);
      ASSERT_TRUE(places.emplace(place.group, place.slot).second) << "two layers in one place";
    }
    for (std::size_t group = 1; group < groups.windows.size(); ++group) {
      const std::int32_t before = groups.windows[group - 1], own = groups.windows[group];
      ASSERT_TRUE(before == 0 || (own != 0 && own <= before)) << "a longer retention behind a shorter one";
    }
  }
}

TEST(KvGroups, APlanHasATableAGroupAndAStateASlot) {
  const Plan plan = build_plan(with_windows({0, 8, 0, 8}), {.kv_pool_blocks = 4, .bounds = {16, 2, 2, 8}});
  verify(plan);
  EXPECT_NE(plan.find("block_tables"), nullptr);
  EXPECT_NE(plan.find("block_tables.1"), nullptr);
  EXPECT_EQ(plan.find("block_tables.2"), nullptr);
  EXPECT_NE(plan.find("kv.1"), nullptr);
  EXPECT_EQ(plan.find("kv.2"), nullptr);
  std::map<std::int32_t, std::string> tables;
  for (const Op& op : plan.ops) {
    if (op.kind != OpKind::attention) continue;
    EXPECT_EQ(op.attributes.window, op.layer % 2 == 0 ? 0 : 8);
    EXPECT_EQ(plan.buffer(op.inputs[3]).name, op.layer % 2 == 0 ? "block_tables" : "block_tables.1");
    EXPECT_EQ(plan.buffer(op.inputs[4]).name, op.layer < 2 ? "kv.0" : "kv.1");
  }
}

}  // namespace
}  // namespace lamella::testing
