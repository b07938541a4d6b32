// A sequence's blocks in every KV group: taken as it grows, given back as windows leave them, shared with others that
// begin alike.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "memory/kv_pool.h"

namespace lamella {

/// How long each KV group keeps the tokens of a sequence, and so how many blocks that takes.
struct KvRetention {
  std::vector<std::int32_t> windows = {0};  // of each group, the longest retention first (kv_groups.h)
  std::int64_t tokens_in_flight = 0;  // of one sequence at most, in all steps that may be in flight; windows need it

  /// The first place whose block a token at `position`, or behind it, reads.
  [[nodiscard]] std::int64_t first_place(std::size_t group, std::int64_t position) const noexcept;
  /// Behind the last place for which a sequence that goes on at `begin` and has `end` tokens is to hold a block: a
  /// group with a window needs none yet for tokens that no step in flight can reach.
  [[nodiscard]] std::int64_t end_place(std::size_t group, std::int64_t begin, std::int64_t end) const noexcept;
  /// Blocks, in all groups together, that a sequence holds which goes on at `begin` and is to get to `end` tokens.
  [[nodiscard]] std::int64_t blocks_between(std::int64_t begin, std::int64_t end) const noexcept;
  /// Blocks, in all groups together, that a sequence which grows to so many tokens holds at most.
  [[nodiscard]] std::int64_t most_blocks(std::int64_t tokens) const noexcept;
  /// The most tokens, up to `most`, for which most_blocks() is at most `blocks`.
  [[nodiscard]] std::int64_t tokens_within(std::int64_t blocks, std::int64_t most) const noexcept;
};

/// What a sequence holds: of every group its block at each place, the first of which has tokens 0 to 15, and
/// KvBlockPool::none where the group's window has left.
struct KvHolding {
  std::vector<std::vector<std::int32_t>> groups;
  PrefixId prefix = empty_prefix;  // of the places that others may share
  std::int64_t published = 0;      // those places
};

/// For places of which all hold what was found to be numbers.
inline constexpr std::int64_t all_sound = std::numeric_limits<std::int64_t>::max();

/// Hands a pool's blocks to the groups of sequences. As the pool: not thread-safe, and nothing allocates where the
/// holdings have room (reserve).
class KvCache {
 public:
  /// Is told of blocks, before they are given back, whose content nobody has found to be numbers.
  using Scrub = std::function<void(std::span<const std::int32_t>)>;

  KvCache(KvBlockPool& pool, KvRetention retention, Scrub scrub);

  [[nodiscard]] const KvRetention& retention() const noexcept { return retention_; }
  [[nodiscard]] KvBlockPool& pool() noexcept { return pool_; }
  /// A holding with room for a sequence of so many tokens. Errors: std::bad_alloc.
  [[nodiscard]] static KvHolding reserve(std::size_t groups, std::int64_t tokens);

  /// Blocks that hold() would take.
  [[nodiscard]] std::int64_t missing(const KvHolding& held, std::int64_t begin, std::int64_t end) const noexcept;
  /// Has the sequence, which goes on at position `begin`, hold what it needs to get to `end` tokens. Takes all that is
  /// missing, or nothing and returns false.
  [[nodiscard]] bool hold(KvHolding& held, std::int64_t begin, std::int64_t end);
  /// Groups in which a sequence of at most `tokens` tokens may yet want a block.
  [[nodiscard]] std::int64_t may_want(const KvHolding& held, std::int64_t tokens) const noexcept;

  /// Has an empty holding begin with what is kept of the beginning of `tokens`, at most so many places, and returns
  /// how many: in every group all blocks that a token behind them reads.
  std::int64_t reuse(std::span<const std::int32_t> tokens, std::int64_t most, KvHolding& held);
  /// Lets others share the next place's blocks, which hold K and V of these 16 tokens.
  void publish(KvHolding& held, std::span<const std::int32_t> tokens) noexcept;

  // Each gives blocks back; those at `sound` and behind hold what nobody has looked at. None fails.
  /// What no token at `position` or behind it reads.
  void leave(KvHolding& held, std::int64_t position, std::int64_t sound) noexcept;
  /// All but what the first `tokens` tokens need, and of these as few as it takes to write to no block that others may
  /// share. Returns how many tokens are left in the cache; 0 where a window has left what they need.
  [[nodiscard]] std::int64_t truncate(KvHolding& held, std::span<const std::int32_t> tokens,
                                      std::int64_t sound) noexcept;
  void release(KvHolding& held, std::int64_t sound) noexcept;

 private:
  [[nodiscard]] std::int64_t reusable(std::span<const std::int32_t> chain) noexcept;
  void give_back(std::vector<std::int32_t>& places, std::int64_t end, std::int64_t sound) noexcept;

  KvBlockPool& pool_;
  KvRetention retention_;
  Scrub scrub_;
};

}  // namespace lamella
