// The packed layout: every byte of a matrix belongs to exactly one thing.
#include <gtest/gtest.h>

#include <vector>

#include "formats.h"
#include "memory/panels.h"

namespace lamella::testing {
namespace {

/// Counts how often the layout claims each byte: words, scales and offsets of every lane, padding lanes included.
std::vector<int> claims(const PanelLayout& layout) {
  std::vector<int> claimed(static_cast<std::size_t>(layout.total_bytes()));
  const auto claim = [&](std::int64_t offset, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; ++i) ++claimed.at(static_cast<std::size_t>(offset + i));
  };
  for (std::int64_t lane = 0; lane < layout.tiles() * tile_outputs; ++lane) {
    for (std::int64_t group = 0; group < layout.groups; ++group) {
      for (std::int64_t word = 0; word < layout.words_of(group); ++word)
        claim(layout.word_offset(lane, group, word), 4);
      claim(layout.scale_offset(lane, group), layout.scale_bytes);
      claim(layout.offset_offset(lane, group), layout.offset_bytes);
    }
  }
  return claimed;
}

TEST(PanelLayout, EveryByteBelongsToOneThing) {
  for (const WeightFormat& format : all_formats()) {
    for (const std::int64_t outputs : {1, 15, 16, 17, 48, 63, 64, 65, 130}) {
      for (const std::int64_t inputs : {1, 3, 8, 31, 32, 33, 64, 97, 160}) {
        const PanelLayout layout(format, outputs, inputs);
        for (const int count : claims(layout)) ASSERT_EQ(count, 1) << to_string(format) << outputs << "x" << inputs;
      }
    }
  }
}

TEST(PanelLayout, BitsOfAWordAreUsedOnce) {
  for (const WeightFormat& format : all_formats()) {
    const PanelLayout layout(format, 16, 64);
    const int bits = bits_of(format.element);
    std::uint64_t used = 0;
    for (std::int64_t i = 0; i < layout.word_inputs; ++i) {
      const std::uint64_t place = ((std::uint64_t{1} << bits) - 1) << layout.bit_offset(i);
      EXPECT_EQ(used & place, 0U);
      used |= place;
    }
    EXPECT_EQ(used, 0xffffffffU) << to_string(format);
  }
}

TEST(PanelLayout, FullPanelsKeepBlocksOnCacheLines) {
  for (const WeightFormat& format : all_formats()) {
    const PanelLayout layout(format, 640, 320);
    for (std::int64_t panel = 0; panel < layout.panels(); ++panel)
      for (std::int64_t group = 0; group < layout.groups; ++group)
        EXPECT_EQ(layout.block_offset(panel, group) % 64, 0) << to_string(format);
  }
}

}  // namespace
}  // namespace lamella::testing
