// Calls of the engine that do not generate: whole inputs through an encoder, and the plan's ops measured. Each runs its
// steps on the loop's thread, between those of requests.
#include <algorithm>
#include <cmath>
#include <deque>

#include "base/check.h"
#include "plan/passes/deep_fusion.h"
#include "runtime/engine_core.h"

namespace lamella {
namespace {

/// Blocks that a call on the loop's thread holds for itself, given back when it ends.
class HeldBlocks {
 public:
  HeldBlocks(KvBlockPool& pool, const KvRetention& retention) : cache_(pool, retention, {}) {}
  ~HeldBlocks() {
    for (KvHolding& one : sequences_) cache_.release(one, all_sound);
  }
  HeldBlocks(const HeldBlocks&) = delete;
  HeldBlocks& operator=(const HeldBlocks&) = delete;

  /// For a step of tokens [begin, end) of a sequence. Stays where it is.
  const KvHolding& take(std::int64_t begin, std::int64_t end) {
    KvHolding& held = sequences_.emplace_back(KvCache::reserve(cache_.retention().windows.size(), end));
    if (!cache_.hold(held, begin, end))
      throw Error(ErrorCode::overloaded, concat("the KV cache has ", cache_.pool().available(), " of ",
                                                cache_.pool().total(), " blocks free and this call needs ",
                                                cache_.missing(held, begin, end), "; wait for other requests to end"));
    return held;
  }
  void clear(Ranks& ranks) const {  // an encoder's, which has one group
    for (const KvHolding& one : sequences_) ranks.clear_kv(one.groups.front());
  }

 private:
  KvCache cache_;
  std::deque<KvHolding> sequences_;
};

/// A part of one sequence for a step that does not come from the scheduler.
struct Chunk {
  std::span<const std::int32_t> tokens;  // the whole sequence
  std::int64_t begin, count;  // the part that this step runs
  const KvHolding* held;
};

/// A step of these chunks; `all_rows` returns every token's row, otherwise each chunk's first.
StepInput chunk_step(const std::vector<Chunk>& chunks, bool all_rows) {
  std::int64_t tokens = 0, width = 0;
  for (const Chunk& chunk : chunks) {
    tokens += chunk.count;
    width = std::max(width, KvBlockPool::blocks_for(chunk.begin + chunk.count));
  }
  const auto sequences = static_cast<std::int64_t>(chunks.size());
  const std::size_t groups = chunks.front().held->groups.size();
  StepInput step(tokens, sequences, all_rows ? tokens : sequences, width, groups);
  std::size_t token = 0;
  for (std::size_t s = 0; s < chunks.size(); ++s) {
    const Chunk& chunk = chunks[s];
    step.sequences()[2 * s] = static_cast<std::int32_t>(token);
    step.sequences()[2 * s + 1] = static_cast<std::int32_t>(chunk.count);
    if (!all_rows) step.row_indices()[s] = static_cast<std::int32_t>(token);
    for (std::size_t group = 0; group < groups; ++group) step.set_blocks(group, s, chunk.held->groups[group]);
    for (std::int64_t i = 0; i < chunk.count; ++i, ++token) {
      step.token_ids()[token] = chunk.tokens[static_cast<std::size_t>(chunk.begin + i)];
      step.positions()[token] = static_cast<std::int32_t>(chunk.begin + i);
      step.rope_lengths()[token] = static_cast<std::int32_t>(chunk.tokens.size());
      if (all_rows) step.row_indices()[token] = static_cast<std::int32_t>(token);
    }
  }
  return step;
}

}  // namespace

std::vector<std::vector<float>> EngineCore::encode(const std::vector<std::vector<std::int32_t>>& inputs,
                                                   Pooling pooling, const InputsDone& between_steps) {
  if (!is_encoder())
    throw Error(ErrorCode::invalid_argument, concat(spec_.family, " is a decoder; encode() is for encoders"));
  validate_each("input", inputs, [&](const std::vector<std::int32_t>& input) { rules_.validate_tokens(input); });
  const PlanOutput output = pooling == Pooling::mean     ? PlanOutput::mean
                            : pooling == Pooling::pooler ? PlanOutput::pooler
                                                         : PlanOutput::hidden;
  require_output(spec_, output);
  std::vector<std::vector<float>> results;
  while (results.size() < inputs.size()) {
    if (!results.empty() && between_steps) between_steps(results.size());
    loop_->call([&] { encode_some(inputs, output, pooling == Pooling::none, results); });
  }
  return results;
}

void EngineCore::encode_some(const std::vector<std::vector<std::int32_t>>& inputs, PlanOutput output, bool all_rows,
                             std::vector<std::vector<float>>& results) {
  HeldBlocks held(*kv_blocks_, retention_);
  std::vector<Chunk> chunks;
  std::int64_t budget = config_.max_num_batched_tokens;
  for (std::size_t i = results.size(); i < inputs.size(); ++i) {
    const auto length = static_cast<std::int64_t>(inputs[i].size());
    if (length > budget || static_cast<std::int64_t>(chunks.size()) == config_.max_num_seqs) break;
    budget -= length;
    chunks.push_back({inputs[i], 0, length, nullptr});
  }
  for (Chunk& chunk : chunks) chunk.held = &held.take(0, chunk.count);
  const std::span<const float> rows = executor(output).run(chunk_step(chunks, all_rows));
  const auto hidden = static_cast<std::size_t>(spec_.hidden);
  std::size_t row = 0;
  for (const Chunk& chunk : chunks) {
    const std::size_t count = all_rows ? static_cast<std::size_t>(chunk.count) : 1;
    const std::span<const float> own = rows.subspan(row * hidden, count * hidden);
    if (!std::ranges::all_of(own, [](float value) { return std::isfinite(value); })) {
      held.clear(ranks_);  // a later step must not meet NaN in a block's unused slots
      throw Error(ErrorCode::numeric,
                  concat("input ", results.size(), ": the model's rows hold NaN or infinity; its weights or the ",
                         "dtype's range are at fault",
                         inputs.size() == 1 ? "" : "; the other inputs of this call are lost, encode them again"));
    }
    results.emplace_back(own.begin(), own.end());
    row += count;
  }
}

std::vector<ExplainRow> EngineCore::explain(const StepShape& shape) {
  if (shape.sequences < 1 || shape.tokens < shape.sequences || shape.kv_tokens < shape.tokens)
    throw Error(ErrorCode::invalid_argument, "batch_size and tokens must be at least 1 and context at least tokens");
  const std::int64_t context = shape.kv_tokens / shape.sequences, new_tokens = shape.tokens / shape.sequences;
  if (context > config_.max_model_len || shape.tokens > config_.max_num_batched_tokens ||
      shape.sequences > config_.max_num_seqs)
    throw Error(ErrorCode::invalid_argument,
                concat("a step of ", shape.sequences, " x ", new_tokens, " tokens at context ", context,
                       " exceeds the engine's limits: ", config_.max_num_seqs, " sequences, ",
                       config_.max_num_batched_tokens, " tokens, context ", config_.max_model_len));
  const std::int64_t blocks = shape.sequences * retention_.blocks_between(context - new_tokens, context);
  if (blocks > kv_blocks_->total())  // not overloaded: to wait would not help
    throw Error(ErrorCode::out_of_memory,
                concat("a step of ", shape.sequences, " sequences at context ", context, " needs ", blocks,
                       " KV blocks and the cache has ", kv_blocks_->total(),
                       " in all; explain fewer sequences, a shorter context, or raise memory_budget or max_num_seqs"));
  const Roofline roof = roofline();
  std::vector<ExplainRow> rows;
  loop_->call([&] {
    HeldBlocks held(*kv_blocks_, retention_);
    const std::vector<std::int32_t> tokens(static_cast<std::size_t>(context), 0);
    std::vector<Chunk> chunks;
    chunks.reserve(static_cast<std::size_t>(shape.sequences));
    for (std::int64_t s = 0; s < shape.sequences; ++s)
      chunks.push_back({tokens, context - new_tokens, new_tokens, &held.take(context - new_tokens, context)});
    const PlanOutput output = is_encoder() ? PlanOutput::hidden : PlanOutput::greedy;  // as most requests run
    const StepInput step = chunk_step(chunks, false);

    constexpr int repeats = 3;
    std::vector<std::vector<double>> best = ranks_.run_timed(output, step);
    for (int i = 1; i < repeats; ++i) {
      const std::vector<std::vector<double>> again = ranks_.run_timed(output, step);
      for (std::size_t stage = 0; stage < best.size(); ++stage)
        std::ranges::transform(best[stage], again[stage], best[stage].begin(),
                               [](double a, double b) { return std::min(a, b); });
    }
    for (int stage = 0; stage < ranks_.stages(); ++stage) {
      const Executor& runner = ranks_.stage_executor(output, stage);
      std::ranges::move(
          explain_rows(
              runner.plan(), step.shape(), roof, [&](std::size_t op) { return runner.arithmetic(op); },
              [&](std::size_t op) { return runner.kernel_name(op); }, best[static_cast<std::size_t>(stage)]),
          std::back_inserter(rows));
    }
  });
  return rows;
}

}  // namespace lamella
