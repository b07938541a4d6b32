// The KV cache's memory: blocks of 16 tokens, handed to sequences, shared between those that begin alike, taken back.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memory/allocation.h"
#include "plan/plan.h"

namespace lamella {

/// A run of full blocks from a sequence's beginning, by number: equal runs of tokens have equal numbers, as long as
/// their blocks are kept. `empty_prefix` is the run of none.
using PrefixId = std::uint64_t;
inline constexpr PrefixId empty_prefix = 0;

/// Counts and hands out blocks; a block means the same slice of every slot's cache, and belongs to one KV group
/// (plan/kv_groups.h) as long as somebody holds it or its content is kept. A block that was published keeps its content
/// after its last holder gave it back, so that a sequence with the same beginning can take it again, until the room is
/// needed: blocks that were not used for longest go first; of those that a sequence gives back at its end the later ones
/// before the earlier ones that lead to them. Blocks are compared by all of their tokens, not by a hash alone: what is
/// shared is the same.
/// Not thread-safe: the engine's loop owns it. Nothing allocates after the constructor but the callers' vectors.
class KvBlockPool {
 public:
  static constexpr std::int32_t none = -1;  // no block

  explicit KvBlockPool(std::int64_t blocks);

  [[nodiscard]] std::int64_t total() const noexcept { return static_cast<std::int64_t>(blocks_.size()); }
  /// Blocks that somebody holds.
  [[nodiscard]] std::int64_t used() const noexcept { return used_; }
  /// Blocks that take() could hand out: never used, given back, or kept only in case they are wanted again.
  [[nodiscard]] std::int64_t available() const noexcept { return total() - used_; }
  /// Blocks that nobody holds and whose content is kept.
  [[nodiscard]] std::int64_t kept() const noexcept { return kept_; }

  /// Takes `count` blocks, or none at all and returns false where fewer are available. Errors: std::bad_alloc, which
  /// takes none; none where `blocks` has the capacity.
  [[nodiscard]] bool take(std::int64_t count, std::vector<std::int32_t>& blocks);
  /// Gives all of `blocks` back and empties it. Never fails, so that destructors may call it.
  void give_back(std::vector<std::int32_t>& blocks) noexcept;
  void give_back(std::int32_t block) noexcept;

  // ---- of group 0 ----
  /// Appends to `blocks` those that hold the beginning of `tokens`, as many in a row as are kept, at most `most`; they
  /// are held as if taken. Returns the prefix that they are. Errors: as take().
  PrefixId reuse(std::span<const std::int32_t> tokens, std::int64_t most, std::vector<std::int32_t>& blocks);
  /// Lets others share `block`, which its holder has filled: K and V of `tokens`, 16 of them, that follow `parent`.
  /// Returns the prefix with it. Where another block holds the same, that one stays the shared one.
  PrefixId publish(std::int32_t block, PrefixId parent, std::span<const std::int32_t> tokens) noexcept;
  /// The run of the first `blocks` full blocks of `tokens`, where all of them are kept.
  [[nodiscard]] std::optional<PrefixId> prefix(std::span<const std::int32_t> tokens, std::int64_t blocks) noexcept;

  // ---- of other groups, which keep the same tokens for a shorter time: found by the prefix that ends with them ----
  /// The block that group keeps of the last tokens of `prefix`, or none.
  [[nodiscard]] std::int32_t find_companion(PrefixId prefix, std::size_t group) noexcept;
  /// Lets others share `block` as that; where another block holds the same, that one stays the shared one.
  void publish_companion(std::int32_t block, PrefixId prefix, std::size_t group) noexcept;

  /// Holds a published block as if taken, and returns it.
  std::int32_t share(std::int32_t block) noexcept;
  [[nodiscard]] bool is_published(std::int32_t block) const noexcept { return at(block).prefix != empty_prefix; }
  /// The run of full blocks that ends with a published block.
  [[nodiscard]] PrefixId prefix_of(std::int32_t block) const noexcept { return at(block).prefix; }

  [[nodiscard]] static std::int64_t blocks_for(std::int64_t tokens) noexcept {
    return (tokens + kv_block_tokens - 1) / kv_block_tokens;
  }

 private:
  struct Block {
    std::int32_t holders = 0;
    std::uint32_t group = 0;
    PrefixId prefix = empty_prefix;  // with this block, once published
    PrefixId parent = empty_prefix;  // without it; group 0's
    std::int32_t tokens[kv_block_tokens] = {};  // group 0's
    std::int32_t next_in_bucket = none;
    std::int32_t older = none, newer = none;  // among the kept ones
  };

  [[nodiscard]] Block& at(std::int32_t block) noexcept { return blocks_[static_cast<std::size_t>(block)]; }
  [[nodiscard]] const Block& at(std::int32_t block) const noexcept { return blocks_[static_cast<std::size_t>(block)]; }
  [[nodiscard]] std::int32_t& bucket(PrefixId parent, std::span<const std::int32_t> tokens) noexcept;
  [[nodiscard]] std::int32_t& bucket(PrefixId prefix, std::size_t group) noexcept;
  [[nodiscard]] std::int32_t find(PrefixId parent, std::span<const std::int32_t> tokens) noexcept;
  void keep(std::int32_t block) noexcept;      // as the newest
  void stop_keeping(std::int32_t block) noexcept;
  void link(std::int32_t block, std::int32_t& bucket) noexcept;
  void unpublish(std::int32_t block) noexcept;
  void hold(std::int32_t block) noexcept;

  std::vector<Block> blocks_;
  std::vector<std::int32_t> empty_;    // without content; lowest block last, so that a small load touches few pages
  std::vector<std::int32_t> buckets_;  // first block of each; a power of two of them
  std::int32_t oldest_ = none, newest_ = none;
  std::int64_t used_ = 0, kept_ = 0;
  PrefixId next_prefix_ = 1;  // never repeats: 64 bits of blocks are more than any engine will fill
};

/// The memory behind every KV state of a plan, by the state's name. Pages are touched only as blocks are used.
class KvMemory {
 public:
  KvMemory(const Plan& plan, std::string_view purpose);

  [[nodiscard]] std::byte* data(const std::string& state) const;
  [[nodiscard]] std::size_t total_bytes() const noexcept { return memory_.size(); }
  /// Bytes that one block takes in all of the plan's states together.
  [[nodiscard]] static std::size_t bytes_per_block(const Plan& plan);
  /// Zeroes the blocks in every state: they may hold NaN.
  void clear(std::span<const std::int32_t> blocks) noexcept;

 private:
  struct State {
    std::size_t offset, block_bytes;
  };
  std::map<std::string, State, std::less<>> states_;
  Allocation memory_;
};

}  // namespace lamella
