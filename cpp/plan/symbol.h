// Sizes that differ from step to step have names; shapes are expressions over them.
#pragma once

#include <cstdint>
#include <string>

namespace lamella {

/// The sizes of a step. Each has an upper bound in the plan, so that memory is planned once.
enum class Symbol : std::uint8_t {
  one,        // a plain number
  tokens,     // T: tokens of the step, all sequences together
  sequences,  // S
  rows,       // R: rows that need logits (or hidden states) out
  kv_blocks,  // B: KV blocks a sequence, the width of the block tables
};

/// One dimension: factor * symbol.
struct Dim {
  Symbol symbol = Symbol::one;
  std::int64_t factor = 1;

  bool operator==(const Dim&) const = default;
};
[[nodiscard]] inline Dim fixed(std::int64_t size) noexcept { return {Symbol::one, size}; }
[[nodiscard]] inline Dim sized(Symbol symbol) noexcept { return {symbol, 1}; }

/// Values of the symbols for one step, and what attention's cost needs beyond them.
struct StepShape {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  std::int64_t rows = 0;
  std::int64_t kv_blocks = 0;
  std::int64_t attended = 0;   // sum over tokens of the positions each may see
  std::int64_t kv_tokens = 0;  // sum over sequences of the KV length, this step's tokens included

  /// A step of `sequences` equal sequences: each brings `new_tokens` that end at position `context` - 1 and gets one
  /// row. Errors: invalid_argument unless 1 <= new_tokens <= context, 1 <= sequences and sequences * context < 2^31,
  /// which is what a step's int32 tables can name.
  [[nodiscard]] static StepShape uniform(std::int64_t sequences, std::int64_t new_tokens, std::int64_t context);

  bool operator==(const StepShape&) const = default;
};

/// Errors: invalid_argument where the product overflows.
[[nodiscard]] std::int64_t evaluate(const Dim& dim, const StepShape& shape);

/// "T", "S", "576", "9*T".
[[nodiscard]] std::string to_string(const Dim& dim);

}  // namespace lamella
