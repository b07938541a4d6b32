// An executor without a model: its KV cache holds the tokens themselves, and the next token is a function of all tokens
// that the block tables of a sequence lead to: in each KV group those in its window. So a block that was shared, freed or
// reused wrongly shows in the tokens.
#pragma once

#include <algorithm>
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

  using Windows = std::vector<std::int32_t>;  // one a KV group; 0: all tokens

  explicit ContentExecutor(std::int64_t blocks, Windows windows = {0})
      : windows_(std::move(windows)),
        cache_(static_cast<std::size_t>(blocks * kv_block_tokens), std::numeric_limits<std::int32_t>::min()) {}

  [[nodiscard]] const Plan& plan() const noexcept override { return plan_; }
  std::span<const float> run(const StepInput& step) override {
    const auto tokens = step.named("token_ids"), positions = step.named("positions"), spans = step.named("sequences"),
               rows = step.named("row_indices");
    output_.clear();
    std::size_t row = 0;
    for (std::size_t s = 0; s < spans.size() / 2; ++s) {
      const auto width = static_cast<std::size_t>(step.kv_blocks());
      const auto table = [&](std::size_t group) {
        return step.named(block_table_name(group)).subspan(s * width, width);
      };
      const auto first = static_cast<std::size_t>(spans[2 * s]), count = static_cast<std::size_t>(spans[2 * s + 1]);
      for (std::size_t i = first; i < first + count; ++i)
        for (std::size_t group = 0; group < windows_.size(); ++group) slot(table(group), positions[i]) = tokens[i];
      for (; row < rows.size() && static_cast<std::size_t>(rows[row]) < first + count; ++row) {
        std::uint64_t hash = start;
        const std::int32_t position = positions[static_cast<std::size_t>(rows[row])];
        for (std::size_t group = 0; group < windows_.size(); ++group)
          for (std::int32_t p = first_seen(position + 1, windows_[group]); p <= position; ++p)
            hash = mixed(hash, slot(table(group), p));
        append_logits(chosen(hash));
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
  [[nodiscard]] Arithmetic arithmetic(std::size_t /*op*/) const override { return Arithmetic::f32; }

  /// What follows these tokens; -1 where their logits are no numbers.
  [[nodiscard]] static std::int32_t next_token(std::span<const std::int32_t> tokens, const Windows& windows = {0}) {
    std::uint64_t hash = start;
    for (const std::int32_t window : windows)
      for (const std::int32_t token :
           tokens.subspan(static_cast<std::size_t>(first_seen(static_cast<std::int32_t>(tokens.size()), window))))
        hash = mixed(hash, token);
    return chosen(hash);
  }
  void scrub(std::span<const std::int32_t> blocks) { scrubbed += static_cast<std::int64_t>(blocks.size()); }

  bool fails_next = false;
  std::int64_t scrubbed = 0;

 private:
  static constexpr std::uint64_t start = 17;
  static std::int32_t first_seen(std::int32_t end, std::int32_t window) {
    return window == 0 ? 0 : std::max(0, end - window);
  }
  static std::uint64_t mixed(std::uint64_t hash, std::int32_t token) {
    return (hash ^ static_cast<std::uint32_t>(token)) * 0x9E3779B97F4A7C15U;
  }
  static std::int32_t chosen(std::uint64_t hash) {
    hash ^= hash >> 31;
    if (hash % 211 == 0) return -1;
    return hash % 29 == 0 ? stop_token : static_cast<std::int32_t>(hash % stop_token);
  }
  std::int32_t& slot(std::span<const std::int32_t> table, std::int32_t position) {
    const auto block = static_cast<std::size_t>(table[static_cast<std::size_t>(position / kv_block_tokens)]);
    return cache_[block * kv_block_tokens + static_cast<std::size_t>(position % kv_block_tokens)];
  }
  void append_logits(std::int32_t next) {
    for (std::int32_t token = 0; token < vocabulary; ++token)
      output_.push_back(next < 0 ? NAN : token == next ? 1.0F : 0.0F);
  }

  Plan plan_;
  Windows windows_;
  std::vector<std::int32_t> cache_;
  std::vector<float> output_;
};

}  // namespace lamella::testing
