// The KV cache's memory: blocks of 16 tokens, handed to sequences and taken back.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "memory/allocation.h"
#include "plan/plan.h"

namespace lamella {

/// Counts and hands out blocks; a block means the same slice of every layer's cache. Not thread-safe: the scheduler
/// owns it.
class KvBlockPool {
 public:
  explicit KvBlockPool(std::int64_t blocks);

  [[nodiscard]] std::int64_t total() const noexcept { return total_; }
  [[nodiscard]] std::int64_t used() const noexcept { return total_ - static_cast<std::int64_t>(free_.size()); }
  /// Takes `count` blocks, or none at all and returns false where fewer are free. Errors: std::bad_alloc, which takes
  /// none; internal where more blocks came back than were taken.
  [[nodiscard]] bool take(std::int64_t count, std::vector<std::int32_t>& blocks);
  /// Gives all of `blocks` back and empties it. Never fails, so that destructors may call it.
  void give_back(std::vector<std::int32_t>& blocks) noexcept;

  [[nodiscard]] static std::int64_t blocks_for(std::int64_t tokens) noexcept {
    return (tokens + kv_block_tokens - 1) / kv_block_tokens;
  }

 private:
  std::int64_t total_;
  std::vector<std::int32_t> free_;  // lowest block last, so that a small load touches few pages
};

/// The memory behind every KV state of a plan, by the state's name. Pages are touched only as blocks are used.
class KvMemory {
 public:
  KvMemory(const Plan& plan, std::string_view purpose);

  [[nodiscard]] std::byte* data(const std::string& state) const;
  [[nodiscard]] std::size_t total_bytes() const noexcept { return memory_.size(); }
  /// Bytes that one block takes in all of the plan's states together.
  [[nodiscard]] static std::size_t bytes_per_block(const Plan& plan);
  /// Zeroes the blocks in every state: they held a request that ended with NaN.
  void clear(const std::vector<std::int32_t>& blocks);

 private:
  struct State {
    std::size_t offset, block_bytes;
  };
  std::map<std::string, State, std::less<>> states_;
  Allocation memory_;
};

}  // namespace lamella
