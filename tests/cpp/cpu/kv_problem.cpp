#include "kv_problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace lamella::cpu::testing {
namespace {

std::int64_t blocks_for(const Context& context) {
  return (context.past + context.count + kv_block_tokens - 1) / kv_block_tokens;
}

std::int64_t all_blocks(const std::vector<Context>& contexts) {
  return std::accumulate(contexts.begin(), contexts.end(), std::int64_t{3},  // three that nobody owns
                         [](std::int64_t sum, const Context& context) { return sum + blocks_for(context); });
}

}  // namespace

KvProblem::KvProblem(std::mt19937_64& random, DataType type, const std::vector<Context>& contexts,
                     std::int64_t kv_heads, std::int64_t head_dim)
    : contexts_(contexts),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      padded_((head_dim + 15) / 16 * 16),
      word_(type == DataType::i8     ? 4
            : type == DataType::bf16 ? 2
                                     : 1),
      plane_(kv_block_tokens * (padded_ + (type == DataType::i8 ? 4 : 0))),  // int8: 16 scales of four bytes at its end
      cache_(type, all_blocks(contexts) * 2 * kv_heads * plane_) {
  std::vector<std::int32_t> free(static_cast<std::size_t>(all_blocks(contexts)));
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), random);
  for (const Context& context : contexts)
    blocks_per_sequence_ = std::max(blocks_per_sequence_, blocks_for(context) + 1);
  for (const Context& context : contexts) {
    for (std::int64_t b = 0; b < blocks_per_sequence_; ++b) {
      tables_.push_back(b < blocks_for(context) ? free.back() : -1);
      if (b < blocks_for(context)) free.pop_back();
    }
    for (std::int64_t i = 0; i < context.count; ++i) positions_.push_back(static_cast<std::int32_t>(context.past + i));
  }
  std::normal_distribution<double> normal;
  for (std::size_t s = 0; s < contexts.size(); ++s)
    for (std::int64_t p = 0; p < contexts[s].past + contexts[s].count; ++p)
      for (const int k_or_v : {0, 1})
        for (std::int64_t head = 0; head < kv_heads; ++head) {
          Values row(static_cast<std::size_t>(head_dim));
          for (double& value : row) value = normal(random);
          set(cache_, static_cast<std::int64_t>(s), p, k_or_v, head, row);
        }
}

Step KvProblem::step(std::int64_t first, std::int64_t count, std::int64_t window) {
  Step step;
  std::int64_t begin = 0;
  for (std::size_t s = 0; s < contexts_.size(); ++s) {
    const std::int64_t from = std::max(first, begin), to = std::min(first + count, begin + contexts_[s].count);
    const std::int64_t position = contexts_[s].past + from - begin;
    begin += contexts_[s].count;
    if (from >= to) continue;
    for (std::int64_t b = 0; b < blocks_per_sequence_; ++b) {
      const bool seen = window == 0 || (b + 1) * kv_block_tokens > position + 1 - window;
      step.tables.push_back(
          seen ? tables_[static_cast<std::size_t>(static_cast<std::int64_t>(s) * blocks_per_sequence_ + b)] : -1);
    }
    step.spans.push_back({static_cast<std::int32_t>(from - first), static_cast<std::int32_t>(to - from)});
  }
  step.tokens = count;
  step.kv = {.cache = cache_.data(),
             .type = cache_.dtype(),
             .block_tables = step.tables.data(),
             .blocks_per_sequence = blocks_per_sequence_,
             .sequences = step.spans.data(),
             .sequence_count = static_cast<std::int64_t>(step.spans.size()),
             .positions = positions_.data() + first,
             .kv_heads = kv_heads_,
             .head_dim = head_dim_};
  return step;
}

std::int64_t KvProblem::plane(std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head) const {
  const std::int64_t block =
      tables_[static_cast<std::size_t>(sequence * blocks_per_sequence_ + position / kv_block_tokens)];
  return ((block * kv_heads_ + head) * 2 + k_or_v) * plane_;
}

std::int64_t KvProblem::index(std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head,
                              std::int64_t d) const {
  const std::int64_t first = plane(sequence, position, k_or_v, head), slot = position % kv_block_tokens;
  // Words of K stand [word][slot], those of V [word][place of the head]: neighbours in a word are `word_` elements.
  if (k_or_v == 0) return first + d / word_ * word_ * kv_block_tokens + slot * word_ + d % word_;
  return first + slot / word_ * word_ * padded_ + d * word_ + slot % word_;
}

std::int64_t KvProblem::scale_at(std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head) const {
  return plane(sequence, position, k_or_v, head) + kv_block_tokens * padded_ + position % kv_block_tokens * 4;
}

void KvProblem::set(Cells& cache, std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head,
                    const Values& row) const {
  const auto place = [&](std::int64_t d) { return index(sequence, position, k_or_v, head, d); };
  float inverse = 1.0F;
  if (cache.dtype() == DataType::i8) {
    float top = 0.0F;
    for (const double value : row) top = std::max(top, std::abs(static_cast<float>(value)));
    if (top < std::ldexp(1.0F, -100)) top = 0.0F;
    const float scale = top / 127.0F;
    inverse = top == 0.0F ? 0.0F : 127.0F / top;
    std::memcpy(static_cast<std::byte*>(cache.data()) + scale_at(sequence, position, k_or_v, head), &scale,
                sizeof scale);
  }
  for (std::int64_t d = 0; d < head_dim_; ++d) {
    const float value = static_cast<float>(row[static_cast<std::size_t>(d)]) * inverse;
    cache.set(place(d), cache.dtype() == DataType::i8 ? std::nearbyint(value) : value);
  }
  if (k_or_v == 0)
    for (std::int64_t behind = head_dim_; behind % word_ != 0; ++behind) cache.set(place(behind), 0.0);
}

void KvProblem::copy_position(const Cells& from, std::int64_t sequence, std::int64_t position, std::int64_t head) {
  for (const int k_or_v : {0, 1}) {
    for (std::int64_t d = 0; d < head_dim_; ++d) {
      const std::int64_t at = index(sequence, position, k_or_v, head, d);
      cache_.set(at, from.at(at));
    }
    if (cache_.dtype() != DataType::i8) continue;
    const std::int64_t scale = scale_at(sequence, position, k_or_v, head);
    std::memcpy(static_cast<std::byte*>(cache_.data()) + scale, static_cast<const std::byte*>(from.data()) + scale, 4);
  }
}

Values KvProblem::row(std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head) const {
  float scale = 1.0F;
  if (cache_.dtype() == DataType::i8)
    std::memcpy(&scale, static_cast<const std::byte*>(cache_.data()) + scale_at(sequence, position, k_or_v, head),
                sizeof scale);
  Values row;
  for (std::int64_t d = 0; d < head_dim_; ++d)
    row.push_back(scale * cache_.at(index(sequence, position, k_or_v, head, d)));
  return row;
}

Values KvProblem::rows(std::int64_t sequence, std::int64_t length, int k_or_v, std::int64_t head) const {
  Values rows;
  for (std::int64_t p = 0; p < length; ++p) {
    const Values next = row(sequence, p, k_or_v, head);
    rows.insert(rows.end(), next.begin(), next.end());
  }
  return rows;
}

std::vector<Context> random_contexts(std::mt19937_64& random, std::int64_t tokens) {
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  std::vector<Context> contexts;
  while (tokens > 0) {
    const std::int64_t count = draw(0, 1) == 0 ? 1 : draw(1, std::min<std::int64_t>(tokens, 20));
    contexts.push_back({draw(0, 3) == 0 ? draw(200, 600) : draw(0, 40), count});
    tokens -= count;
  }
  return contexts;
}

Values attention64(const KvProblem& problem, const Values& query, std::int64_t heads, std::int64_t kv_heads,
                   std::int64_t head_dim, double scale, Visible visible) {
  const std::int64_t group = heads / kv_heads;
  Values y(query.size());
  std::int64_t first = 0;
  for (std::size_t s = 0; s < problem.contexts().size(); first += problem.contexts()[s++].count) {
    const Context& context = problem.contexts()[s];
    const std::int64_t whole = context.past + context.count;
    for (std::int64_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
      const Values keys = problem.rows(static_cast<std::int64_t>(s), whole, 0, kv_head),
                   values = problem.rows(static_cast<std::int64_t>(s), whole, 1, kv_head);
      for (std::int64_t i = 0; i < context.count; ++i) {
        const std::int64_t end = visible.causal ? context.past + i + 1 : whole;
        const std::int64_t begin = visible.window > 0 ? std::max<std::int64_t>(0, end - visible.window) : 0;
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          const std::int64_t at = ((first + i) * heads + head) * head_dim;
          const Values row = attend64(query.data() + at, keys.data() + begin * head_dim,
                                      values.data() + begin * head_dim, end - begin, head_dim, scale);
          std::copy(row.begin(), row.end(), y.begin() + at);
        }
      }
    }
  }
  return y;
}

}  // namespace lamella::cpu::testing
