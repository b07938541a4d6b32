// An executor without a model: its KV cache holds the tokens themselves, and the next token is a function of all tokens
// that a sequence's block table leads to. So a block that was shared, freed or reused wrongly shows in the tokens.
#pragma once

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/executor.h"

namespace lamella::testing {

class ContentExecutor final : public Executor {
 public:
  static constexpr std::int32_t vocabulary = 7;
  static constexpr std::int32_t stop_token = 6;

  explicit ContentExecutor(std::int64_t blocks)
      : cache_(static_cast<std::size_t>(blocks * kv_block_tokens), std::numeric_limits<std::int32_t>::min()) {}

  [[nodiscard]] const Plan& plan() const noexcept override { return plan_; }
  std::span<const float> run(const StepInput& step) override {
    const auto tokens = step.named("token_ids"), positions = step.named("positions"), spans = step.named("sequences"),
               tables = step.named("block_tables"), rows = step.named("row_indices");
    output_.clear();
    std::size_t row = 0;
    for (std::size_t s = 0; s < spans.size() / 2; ++s) {
      const std::span<const std::int32_t> table =
          tables.subspan(s * static_cast<std::size_t>(step.kv_blocks()), static_cast<std::size_t>(step.kv_blocks()));
      const auto first = static_cast<std::size_t>(spans[2 * s]), count = static_cast<std::size_t>(spans[2 * s + 1]);
      for (std::size_t i = first; i < first + count; ++i) slot(table, positions[i]) = tokens[i];
      for (; row < rows.size() && static_cast<std::size_t>(rows[row]) < first + count; ++row) {
        std::vector<std::int32_t> seen;
        for (std::int32_t p = 0; p <= positions[static_cast<std::size_t>(rows[row])]; ++p)
          seen.push_back(slot(table, p));
        append_logits(seen);
      }
    }
    if (fails_next) {
      fails_next = false;
      throw std::runtime_error("planted");
    }
    return output_;
  }
  std::vector<double> run_timed(const StepInput& /*step*/) override { return {}; }
  [[nodiscard]] std::string kernel_name(std::size_t /*op*/) const override { return "content"; }

  /// What follows these tokens; -1 where their logits are no numbers.
  [[nodiscard]] static std::int32_t next_token(std::span<const std::int32_t> tokens) {
    std::uint64_t hash = 17;
    for (const std::int32_t token : tokens) hash = (hash ^ static_cast<std::uint32_t>(token)) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 31;
    if (hash % 211 == 0) return -1;
    return hash % 29 == 0 ? stop_token : static_cast<std::int32_t>(hash % stop_token);
  }
  void scrub(std::span<const std::int32_t> blocks) { scrubbed += static_cast<std::int64_t>(blocks.size()); }

  bool fails_next = false;
  std::int64_t scrubbed = 0;

 private:
  std::int32_t& slot(std::span<const std::int32_t> table, std::int32_t position) {
    const auto block = static_cast<std::size_t>(table[static_cast<std::size_t>(position / kv_block_tokens)]);
    return cache_[block * kv_block_tokens + static_cast<std::size_t>(position % kv_block_tokens)];
  }
  void append_logits(std::span<const std::int32_t> tokens) {
    const std::int32_t next = next_token(tokens);
    for (std::int32_t token = 0; token < vocabulary; ++token)
      output_.push_back(next < 0 ? NAN : token == next ? 1.0F : 0.0F);
  }

  Plan plan_;
  std::vector<std::int32_t> cache_;
  std::vector<float> output_;
};

}  // namespace lamella::testing
