// One step of work, flat: what the scheduler hands to an executor, and what rank 0 could broadcast as it is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan/symbol.h"

namespace lamella {

/// Token ids, positions, block tables and output rows of one step, in one array of int32. Layout: six sizes (tokens,
/// sequences, rows, KV blocks a sequence, KV groups, version), then the arrays below in order. Sequence s owns tokens
/// [first, first + count) in order of position; tokens of all sequences stand one after another.
class StepInput {
 public:
  StepInput() : StepInput(0, 0, 0, 0) {}
  StepInput(std::int64_t tokens, std::int64_t sequences, std::int64_t rows, std::int64_t kv_blocks,
            std::size_t kv_groups = 1);
  /// As a new one of these sizes, all zero, in the memory that it has: nothing is allocated after a larger one.
  void reset(std::int64_t tokens, std::int64_t sequences, std::int64_t rows, std::int64_t kv_blocks,
             std::size_t kv_groups = 1);

  [[nodiscard]] std::int64_t tokens() const noexcept { return words_[0]; }
  [[nodiscard]] std::int64_t sequence_count() const noexcept { return words_[1]; }
  [[nodiscard]] std::int64_t rows() const noexcept { return words_[2]; }
  [[nodiscard]] std::int64_t kv_blocks() const noexcept { return words_[3]; }
  [[nodiscard]] std::size_t kv_groups() const noexcept { return static_cast<std::size_t>(words_[4]); }

  [[nodiscard]] std::span<std::int32_t> token_ids() noexcept { return part(0); }       // [tokens]
  [[nodiscard]] std::span<std::int32_t> positions() noexcept { return part(1); }       // [tokens]
  [[nodiscard]] std::span<std::int32_t> rope_lengths() noexcept { return part(2); }    // [tokens], see rope.h
  [[nodiscard]] std::span<std::int32_t> token_types() noexcept {
    return part(3);
  }     // [tokens], zero without token types
  [[nodiscard]] std::span<std::int32_t> sequences() noexcept { return part(4); }       // [sequences][first, count]
  [[nodiscard]] std::span<std::int32_t> block_tables() noexcept {
    return part(5);
  }    // [kv_groups][sequences][kv_blocks]
  [[nodiscard]] std::span<std::int32_t> row_indices() noexcept { return part(6); }     // [rows], indices of tokens
  [[nodiscard]] std::span<const std::int32_t> named(std::string_view buffer) const;    // by the plan's input name

  /// Writes a sequence's row of a group's table: the first kv_blocks of its blocks. Those that a window has left, which
  /// nothing reads, and those that it has not got yet become block 0.
  void set_blocks(std::size_t group, std::size_t sequence, std::span<const std::int32_t> blocks) noexcept;

  /// The symbols' values, attention's sums included.
  [[nodiscard]] StepShape shape() const;

 private:
  static constexpr std::size_t header_words = 6;
  static constexpr std::size_t parts = 7;
  [[nodiscard]] std::size_t begin(std::size_t part) const noexcept;
  [[nodiscard]] std::span<std::int32_t> part(std::size_t index) noexcept;

  std::vector<std::int32_t> words_;
};

}  // namespace lamella
