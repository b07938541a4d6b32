// What of a model one of several ranks holds when every layer is cut across them: tensor slicing (the paper's IV-A).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/model_spec.h"

namespace lamella {

/// Numbers [begin, end).
struct ShardRange {
  std::int64_t begin = 0, end = 0;

  [[nodiscard]] constexpr std::int64_t size() const noexcept { return end - begin; }
  bool operator==(const ShardRange&) const = default;
};

/// `units` cut into `ranks` runs, in order, whose lengths differ by one at most: the longer ones come first.
[[nodiscard]] constexpr ShardRange even_share(std::int64_t units, int rank, int ranks) noexcept {
  const std::int64_t each = units / ranks, longer = units % ranks;
  const auto cut = [&](int at) { return at * each + (at < longer ? at : longer); };
  return {cut(rank), cut(rank + 1)};
}

/// The heads of one layer's attention on one rank.
struct HeadShard {
  ShardRange heads;
  /// Of each local KV head, its number in the model. Local query head i reads local KV head i / (heads.size() /
  /// kv_heads.size()), which divides. A KV head stands on every rank that has a query head of it, and where a rank has
  /// unequal parts of two groups, more than once.
  std::vector<std::int32_t> kv_heads;

  bool operator==(const HeadShard&) const = default;
};

/// Whole KV heads with their query heads where there is one for every rank; otherwise the query heads, as evenly as they
/// divide, each with its KV head.
[[nodiscard]] HeadShard shard_heads(const AttentionSpec& attention, int rank, int ranks);

/// Units that a cut of an MLP's inner width, and of the vocabulary, keeps whole: panels of 64 outputs, and groups of inputs
/// of every format with groups up to 64.
inline constexpr std::int64_t shard_unit = 64;

/// Of `width` numbers, in units of shard_unit where every rank then has one, else one by one.
[[nodiscard]] ShardRange shard_width(std::int64_t width, int rank, int ranks);

/// Errors: invalid_argument where some layer has fewer query heads or a narrower MLP than there are ranks, or the vocabulary
/// fewer tokens: the message names the layer, and the largest number of ranks that works.
void require_shards(const ModelSpec& spec, int ranks);

/// Errors: invalid_argument where the model has fewer layers than a pipeline has stages.
void require_stages(const ModelSpec& spec, int stages);

}  // namespace lamella
