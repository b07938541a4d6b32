// A KV cache under test: several sequences of any lengths in shuffled blocks, of which any run of tokens can be one
// step.
#pragma once

#include <vector>

#include "float64.h"
#include "kernel_testing.h"

namespace lamella::cpu::testing {

/// A sequence of a step: `past` positions in the cache already, `count` tokens of this step after them.
struct Context {
  std::int64_t past, count;
};

/// The arguments of one step; its KvLayout points into the problem and into itself.
struct Step {
  std::vector<SequenceSpan> spans;
  std::vector<std::int32_t> tables;
  KvLayout kv{};
  std::int64_t tokens = 0;
};

class KvProblem {
 public:
  /// All positions [0, past + count) of every sequence hold random K and V, stored in `type`; all else in the cache is
  /// NaN, so that reading too far shows.
  KvProblem(std::mt19937_64& random, DataType type, const std::vector<Context>& contexts, std::int64_t kv_heads,
            std::int64_t head_dim);

  /// Tokens [first, first + count) of the problem as a step of their own: other sequences are absent, a cut sequence is
  /// chunked. With a window the step's tables lack the blocks that none of its tokens sees.
  [[nodiscard]] Step step(std::int64_t first, std::int64_t count, std::int64_t window = 0);
  [[nodiscard]] Step whole() { return step(0, tokens()); }
  [[nodiscard]] std::int64_t tokens() const { return static_cast<std::int64_t>(positions_.size()); }
  [[nodiscard]] const std::vector<Context>& contexts() const { return contexts_; }
  [[nodiscard]] Cells& cache() { return cache_; }

  /// Stores a position's K (0) or V (1) in `cache`: rounded, with its scale where the type has one, and with the zeros
  /// that fill K's last word.
  void set(Cells& cache, std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head,
           const Values& row) const;
  /// Takes a position's K and V of one head over from another such cache.
  void copy_position(const Cells& from, std::int64_t sequence, std::int64_t position, std::int64_t head);
  /// A row as the cache holds it.
  [[nodiscard]] Values row(std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head) const;
  /// K or V rows of positions [0, length).
  [[nodiscard]] Values rows(std::int64_t sequence, std::int64_t length, int k_or_v, std::int64_t head) const;
  /// Calls body(token, sequence, position) for all tokens.
  template <typename Body>
  void each_token(const Body& body) const {
    std::int64_t token = 0;
    for (std::size_t s = 0; s < contexts_.size(); ++s)
      for (std::int64_t i = 0; i < contexts_[s].count; ++i)
        body(token++, static_cast<std::int64_t>(s), contexts_[s].past + i);
  }

 private:
  /// The element of the cache that is the first of a position's plane, and the one that holds place `d`.
  [[nodiscard]] std::int64_t plane(std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head) const;
  [[nodiscard]] std::int64_t index(std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head,
                                   std::int64_t d) const;
  /// Where the scale of a position's row stands, in bytes.
  [[nodiscard]] std::int64_t scale_at(std::int64_t sequence, std::int64_t position, int k_or_v,
                                      std::int64_t head) const;

  std::vector<Context> contexts_;
  std::int64_t kv_heads_, head_dim_, blocks_per_sequence_ = 0;
  std::vector<std::int32_t> tables_, positions_;
  std::int64_t padded_, word_, plane_;  // places of a head, neighbours in a word, elements of a plane
  Cells cache_;
};

/// The types in which a cache may hold K and V.
inline constexpr DataType kv_types[] = {DataType::f32, DataType::f16, DataType::bf16, DataType::i8};

/// Random contexts, some longer than attention's parts, together `tokens` tokens.
[[nodiscard]] std::vector<Context> random_contexts(std::mt19937_64& random, std::int64_t tokens);

/// What attention is over: the last `window` positions of a token's context where that is not 0.
struct Visible {
  bool causal = true;
  std::int64_t window = 0;
};

/// softmax(scale q K^T) V in float64 for all tokens; query and result [tokens][heads][head_dim].
[[nodiscard]] Values attention64(const KvProblem& problem, const Values& query, std::int64_t heads,
                                 std::int64_t kv_heads, std::int64_t head_dim, double scale, Visible visible);

}  // namespace lamella::cpu::testing
