#include "kv_problem.h"

#include <algorithm>
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

KvProblem::KvProblem(std::mt19937_64& random, DataType dtype, const std::vector<Context>& contexts,
                     std::int64_t kv_heads, std::int64_t head_dim)
    : contexts_(contexts),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      cache_(dtype, all_blocks(contexts) * 2 * kv_heads * kv_block_tokens * head_dim) {
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
        for (std::int64_t head = 0; head < kv_heads; ++head)
          for (std::int64_t d = 0; d < head_dim; ++d)
            cache_.set(index(static_cast<std::int64_t>(s), p, k_or_v, head) + d, normal(random));
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
             .block_tables = step.tables.data(),
             .blocks_per_sequence = blocks_per_sequence_,
             .sequences = step.spans.data(),
             .sequence_count = static_cast<std::int64_t>(step.spans.size()),
             .positions = positions_.data() + first,
             .kv_heads = kv_heads_,
             .head_dim = head_dim_};
  return step;
}

std::int64_t KvProblem::index(std::int64_t sequence, std::int64_t position, int k_or_v, std::int64_t head) const {
  const std::int64_t block =
      tables_[static_cast<std::size_t>(sequence * blocks_per_sequence_ + position / kv_block_tokens)];
  return (((block * 2 + k_or_v) * kv_heads_ + head) * kv_block_tokens + position % kv_block_tokens) * head_dim_;
}

Values KvProblem::rows(std::int64_t sequence, std::int64_t length, int k_or_v, std::int64_t head) const {
  Values rows;
  for (std::int64_t p = 0; p < length; ++p)
    for (std::int64_t d = 0; d < head_dim_; ++d) rows.push_back(cache_.at(index(sequence, p, k_or_v, head) + d));
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
  Values y(query.size());
  problem.each_token([&](std::int64_t token, std::int64_t sequence, std::int64_t position) {
    const Context& context = problem.contexts()[static_cast<std::size_t>(sequence)];
    const std::int64_t end = visible.causal ? position + 1 : context.past + context.count;
    const std::int64_t begin = visible.window > 0 ? std::max<std::int64_t>(0, end - visible.window) : 0;
    for (std::int64_t head = 0; head < heads; ++head) {
      const std::int64_t kv_head = head / (heads / kv_heads), at = (token * heads + head) * head_dim;
      const auto seen = [&](int k_or_v) {
        Values rows = problem.rows(sequence, end, k_or_v, kv_head);
        rows.erase(rows.begin(), rows.begin() + begin * head_dim);
        return rows;
      };
      const Values row = attend64(query.data() + at, seen(0), seen(1), end - begin, head_dim, scale);
      std::copy(row.begin(), row.end(), y.begin() + at);
    }
  });
  return y;
}

}  // namespace lamella::cpu::testing
