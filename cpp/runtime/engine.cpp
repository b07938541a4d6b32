#include "runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <new>
#include <thread>

#include "base/check.h"
#include "base/clock.h"
#include "plan/passes/deep_fusion.h"
#include "plan/verify.h"
#include "runtime/sampler.h"

namespace lamella {
namespace {

/// Rows of logits that a step can return at most when logits() asks for every position: bounds the [rows][vocabulary]
/// buffer.
constexpr std::int64_t most_logit_rows = 64;

/// The exception that is being handled, as a request reports it.
Error handled_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {ErrorCode::out_of_memory, "the host ran out of memory during a step; run fewer requests at once"};
  } catch (const std::exception& error) {
    return {ErrorCode::internal, concat("a step failed: ", error.what())};
  }
}

EngineConfig resolved(EngineConfig config, const ModelSpec& spec) {
  const auto within = [](std::string_view field, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value < least || value > most)
      throw Error(ErrorCode::invalid_argument, concat(field, " is ", value, "; expected ", least, " to ", most));
  };
  if (config.max_model_len == 0) config.max_model_len = spec.max_positions;
  within("max_model_len", config.max_model_len, 1, spec.max_positions);
  within("max_num_seqs", config.max_num_seqs, 1, 4096);
  within("max_num_batched_tokens", config.max_num_batched_tokens, 1, 1 << 20);
  // Every generating sequence brings a token, so a step must have room for all of them.
  config.max_num_batched_tokens = std::max(config.max_num_batched_tokens, config.max_num_seqs);
  if (spec.head.kind == HeadKind::hidden)
    config.max_num_batched_tokens = std::max(config.max_num_batched_tokens, config.max_model_len);
  return config;
}

/// Validates every item; where there are several, the error names the index of the first that does not pass.
template <typename Item, typename Validate>
void validate_each(std::string_view what, const std::vector<Item>& items, const Validate& validate_one) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    try {
      validate_one(items[i]);
    } catch (const Error& error) {
      if (items.size() == 1) throw;
      throw Error(error.code(), concat(what, " ", i, ": ", error.what()));
    }
  }
}

/// Blocks that a call holds for itself, given back when it ends.
class HeldBlocks {
 public:
  HeldBlocks(KvBlockPool& pool, std::mutex& guard) : pool_(pool), guard_(guard) {}
  ~HeldBlocks() {
    const std::lock_guard lock(guard_);
    for (std::vector<std::int32_t>& one : sequences_) pool_.give_back(one);
  }
  HeldBlocks(const HeldBlocks&) = delete;
  HeldBlocks& operator=(const HeldBlocks&) = delete;

  const std::vector<std::int32_t>& take(std::int64_t tokens) {
    const std::lock_guard lock(guard_);
    const std::int64_t count = KvBlockPool::blocks_for(tokens);
    sequences_.emplace_back();
    if (!pool_.take(count, sequences_.back()))
      throw Error(ErrorCode::overloaded,
                  concat("the KV cache has ", pool_.total() - pool_.used(), " of ", pool_.total(),
                         " blocks free and this call needs ", count, "; wait for other requests to end"));
    return sequences_.back();
  }
  void clear(KvMemory& memory) const {
    for (const std::vector<std::int32_t>& one : sequences_) memory.clear(one);
  }

 private:
  KvBlockPool& pool_;
  std::mutex& guard_;
  std::vector<std::vector<std::int32_t>> sequences_;
};

/// A part of one sequence for a step that does not come from the scheduler.
struct Chunk {
  std::span<const std::int32_t> tokens;  // the whole sequence
  std::int64_t begin, count;             // the part that this step runs
  std::span<const std::int32_t> blocks;
};

/// A step of these chunks; `all_rows` returns every token's row, otherwise each chunk's first.
StepInput chunk_step(const std::vector<Chunk>& chunks, bool all_rows) {
  std::int64_t tokens = 0, width = 0;
  for (const Chunk& chunk : chunks) {
    tokens += chunk.count;
    width = std::max(width, KvBlockPool::blocks_for(chunk.begin + chunk.count));
  }
  const auto sequences = static_cast<std::int64_t>(chunks.size());
  StepInput step(tokens, sequences, all_rows ? tokens : sequences, width);
  std::size_t token = 0;
  for (std::size_t s = 0; s < chunks.size(); ++s) {
    const Chunk& chunk = chunks[s];
    step.sequences()[2 * s] = static_cast<std::int32_t>(token);
    step.sequences()[2 * s + 1] = static_cast<std::int32_t>(chunk.count);
    if (!all_rows) step.row_indices()[s] = static_cast<std::int32_t>(token);
    std::copy_n(chunk.blocks.begin(), std::min<std::size_t>(chunk.blocks.size(), static_cast<std::size_t>(width)),
                step.block_tables().begin() + static_cast<std::ptrdiff_t>(s) * width);
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

Engine::Engine(ModelSpec spec, EngineConfig config, std::unique_ptr<Device> device, const FillWeights& fill)
    : spec_(std::move(spec)), device_(std::move(device)) {
  validate(spec_);
  config_ = resolved(std::move(config), spec_);

  memory_.kv_blocks = 1;  // a plan with the smallest pool shows what a block and the activations cost
  const Plan draft = make_plan(default_output());
  std::size_t workspace = 0;
  for (const PlanOutput output : outputs())
    workspace = std::max(workspace, device_->workspace_bytes(make_plan(output)));
  memory_ = split_memory({.weights = ResidentWeights::planned_bytes(draft.weights),
                          .activations = workspace,
                          .kv_bytes_per_block = KvMemory::bytes_per_block(draft),
                          .max_num_seqs = config_.max_num_seqs,
                          .max_model_len = config_.max_model_len,
                          .keeps_kv = !is_encoder(),
                          .step_tokens = config_.max_num_batched_tokens,
                          .available = device_->available_memory(),
                          .budget = config_.memory_budget});

  weights_ = std::make_unique<ResidentWeights>(draft.weights);
  kv_blocks_ = std::make_unique<KvBlockPool>(memory_.kv_blocks);
  kv_memory_ = std::make_unique<KvMemory>(make_plan(default_output()), "the KV cache");
  scheduler_ = std::make_unique<Scheduler>(SchedulerLimits{.max_num_seqs = config_.max_num_seqs,
                                                           .max_num_batched_tokens = config_.max_num_batched_tokens,
                                                           .max_model_len = config_.max_model_len},
                                           *kv_blocks_);
  workspace_ = Allocation(workspace, "activations");
  for (const PlanOutput output : outputs())
    executors_[output] = device_->executor(
        make_plan(output),
        {.weights = *weights_, .kv = *kv_memory_, .workspace = {workspace_.data(), workspace_.size()}});
  fill(*weights_, device_->team());
}

Engine::~Engine() = default;

Plan Engine::make_plan(PlanOutput output) const {
  const std::int64_t rows = output == PlanOutput::logits   ? std::max(config_.max_num_seqs, most_logit_rows)
                            : output == PlanOutput::hidden ? config_.max_num_batched_tokens
                                                           : config_.max_num_seqs;
  Plan plan = build_plan(spec_, {.dtype = config_.dtype,
                                 .weight_formats = config_.weight_formats,
                                 .output = output,
                                 .kv_pool_blocks = memory_.kv_blocks,
                                 .bounds = {.tokens = config_.max_num_batched_tokens,
                                            .sequences = config_.max_num_seqs,
                                            .rows = rows,
                                            .kv_blocks = KvBlockPool::blocks_for(config_.max_model_len)}});
  verify(plan);
  return config_.deep_fusion && device_->has_fused_kernels() ? deep_fusion(plan) : plan;
}

std::vector<PlanOutput> Engine::outputs() const {
  if (!is_encoder()) return {PlanOutput::logits};
  std::vector<PlanOutput> all = {PlanOutput::hidden, PlanOutput::mean};
  if (spec_.head.pooler) all.push_back(PlanOutput::pooler);
  return all;
}

// ---- requests --------------------------------------------------------------------------------------------------------

void Engine::validate_tokens(std::span<const std::int32_t> tokens) const {
  if (tokens.empty()) throw Error(ErrorCode::invalid_argument, "the prompt has no tokens");
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= spec_.vocab)
      throw Error(ErrorCode::invalid_argument,
                  concat("prompt token ", i, " is ", tokens[i], "; the vocabulary has ids 0 to ", spec_.vocab - 1));
  const auto length = static_cast<std::int64_t>(tokens.size());
  if (length > config_.max_model_len)
    throw Error(ErrorCode::context_too_long, concat("the prompt has ", length, " tokens and the context holds ",
                                                    config_.max_model_len, "; shorten it or raise max_model_len"));
}

void Engine::validate_request(const Request& request) const {
  if (is_encoder())
    throw Error(ErrorCode::invalid_argument,
                concat(spec_.family, " is an encoder and generates nothing; use encode()"));
  validate(request.sampling, spec_.vocab);
  validate_tokens(request.prompt);
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t room = config_.max_model_len - prompt;
  if (request.sampling.max_tokens > room)
    throw Error(ErrorCode::context_too_long,
                concat("a prompt of ", prompt, " tokens plus max_tokens ", request.sampling.max_tokens,
                       " exceeds the context of ", config_.max_model_len,
                       room > 0 ? concat("; ask for at most ", room)
                                : std::string(", which the prompt fills; shorten it or raise max_model_len")));
}

void Engine::count_rejected(std::size_t requests) {
  const std::lock_guard lock(state_);
  counters_.received += static_cast<std::int64_t>(requests);
  counters_.rejected += static_cast<std::int64_t>(requests);
}

void Engine::validate_requests(const std::vector<Request>& requests) {
  try {
    validate_each("request", requests, [&](const Request& request) { validate_request(request); });
  } catch (...) {
    count_rejected(requests.size());
    throw;
  }
}

RequestId Engine::submit(Request request) {
  try {
    validate_request(request);
  } catch (...) {
    count_rejected(1);
    throw;
  }
  const std::lock_guard lock(state_);
  const RequestId id = scheduler_->add(std::move(request), now_seconds());
  ++counters_.received;
  return id;
}

bool Engine::step() {
  const std::lock_guard one_step(stepping_);
  std::vector<Scheduled> parts;
  {
    const std::lock_guard lock(state_);
    for (Sequence* sequence : scheduler_->cancel_requested()) end(*sequence, FinishReason::cancelled);
    parts = scheduler_->next();
    if (parts.empty()) return false;
  }
  // Without state_, a cancel only marks the sequence: its tokens and blocks stay as they are until commit.
  std::span<const float> logits;
  std::optional<Error> failure;
  try {
    logits = executor(PlanOutput::logits).run(scheduler_->step_input(parts));
  } catch (const std::exception&) {
    failure = handled_error();
  }
  const std::lock_guard lock(state_);
  if (failure) {
    for (const Scheduled& part : parts) end(*part.sequence, FinishReason::error, failure);
  } else {
    commit(parts, logits);
  }
  return true;
}

void Engine::commit(const std::vector<Scheduled>& parts, std::span<const float> logits) {
  const auto vocabulary = static_cast<std::size_t>(spec_.vocab);
  std::size_t row = 0;
  for (const Scheduled& part : parts) {
    Sequence& sequence = *part.sequence;
    if (sequence.cancel_requested) {
      end(sequence, FinishReason::cancelled);
    } else if (part.samples) {
      take_token(sequence, logits.subspan(row * vocabulary, vocabulary));
    }
    sequence.cached += part.tokens;  // last: whatever throws before it, the next step computes this part again
    row += part.samples ? 1 : 0;
  }
}

void Engine::take_token(Sequence& sequence, std::span<const float> logits) {
  try {
    if (!sequence.sampler) sequence.sampler.emplace(sequence.sampling, sequence.tokens, spec_.vocab, 0);
    const std::int32_t token = sequence.sampler->next(logits, sampler_scratch_).token;
    if (sequence.first_token_s == 0.0) sequence.first_token_s = now_seconds() - sequence.submitted_s;
    if (std::ranges::find(sequence.sampling.stop_token_ids, token) != sequence.sampling.stop_token_ids.end())
      return end(sequence, FinishReason::stop);
    sequence.tokens.push_back(token);
    sequence.sampler->accept(token);
  } catch (const std::exception&) {
    const Error error = handled_error();
    kv_memory_->clear(sequence.blocks);  // a later request must not meet NaN in a block's unused slots
    return end(sequence, FinishReason::error, error);
  }
  if (static_cast<std::int64_t>(sequence.tokens.size()) - sequence.prompt_tokens >= sequence.sampling.max_tokens)
    end(sequence, FinishReason::length);
}

void Engine::end(Sequence& sequence, FinishReason reason, std::optional<Error> error) {
  scheduler_->finish(sequence, reason, std::move(error));
  switch (reason) {
    case FinishReason::cancelled: ++counters_.cancelled; break;
    case FinishReason::error: ++counters_.failed; break;
    default: ++counters_.finished;
  }
}

Progress Engine::poll(RequestId id) {
  const std::lock_guard lock(state_);
  Sequence* sequence = scheduler_->find(id);
  if (sequence == nullptr)
    throw Error(ErrorCode::invalid_argument, concat("no request ", id, "; its result was already taken"));
  Progress progress{
      .new_tokens = {sequence->tokens.begin() + sequence->prompt_tokens + sequence->delivered, sequence->tokens.end()},
      .reason = sequence->reason,
      .error = sequence->error,
      .first_token_s = sequence->first_token_s};
  sequence->delivered += static_cast<std::int64_t>(progress.new_tokens.size());
  if (progress.reason != FinishReason::running) scheduler_->forget(id);
  return progress;
}

void Engine::cancel(RequestId id) {
  const std::unique_lock not_stepping(stepping_, std::try_to_lock);
  const std::lock_guard lock(state_);
  Sequence* sequence = scheduler_->find(id);
  if (sequence == nullptr || sequence->reason != FinishReason::running) return;
  if (not_stepping.owns_lock() || sequence->blocks.empty()) {  // without blocks it still waits
    end(*sequence, FinishReason::cancelled);
  } else {
    sequence->cancel_requested = true;  // a step may be using its blocks right now
  }
}

// ---- whole sequences at once -----------------------------------------------------------------------------------------

std::vector<float> Engine::logits(std::span<const std::int32_t> tokens, const Interrupt& interrupt) {
  if (is_encoder())
    throw Error(ErrorCode::invalid_argument, concat(spec_.family, " is an encoder: it has no logits; use encode()"));
  validate_tokens(tokens);
  std::unique_lock alone(whole_sequence_, std::try_to_lock);
  while (!alone.owns_lock()) {  // the other call may take long, and this one can be interrupted
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (interrupt) interrupt();
    static_cast<void>(alone.try_lock());
  }
  HeldBlocks held(*kv_blocks_, state_);
  const auto length = static_cast<std::int64_t>(tokens.size());
  const std::vector<std::int32_t>& blocks = held.take(length);
  std::vector<float> result;
  result.reserve(tokens.size() * static_cast<std::size_t>(spec_.vocab));
  const std::int64_t at_once = std::min(most_logit_rows, config_.max_num_batched_tokens);
  for (std::int64_t begin = 0; begin < length; begin += at_once) {
    if (begin > 0 && interrupt) interrupt();
    const std::lock_guard one_step(stepping_);
    const std::int64_t count = std::min(at_once, length - begin);
    const std::span<const float> rows =
        executor(PlanOutput::logits).run(chunk_step({{tokens, begin, count, blocks}}, true));
    result.insert(result.end(), rows.begin(), rows.end());
  }
  return result;
}

std::vector<std::vector<float>> Engine::encode(const std::vector<std::vector<std::int32_t>>& inputs, Pooling pooling,
                                               const Interrupt& interrupt) {
  if (!is_encoder())
    throw Error(ErrorCode::invalid_argument, concat(spec_.family, " is a decoder; encode() is for encoders"));
  validate_each("input", inputs, [&](const std::vector<std::int32_t>& input) { validate_tokens(input); });
  const PlanOutput output = pooling == Pooling::mean     ? PlanOutput::mean
                            : pooling == Pooling::pooler ? PlanOutput::pooler
                                                         : PlanOutput::hidden;
  require_output(spec_, output);
  const auto hidden = static_cast<std::size_t>(spec_.hidden);
  std::vector<std::vector<float>> results;
  while (results.size() < inputs.size()) {
    if (!results.empty() && interrupt) interrupt();
    const std::lock_guard one_step(stepping_);
    HeldBlocks held(*kv_blocks_, state_);
    std::vector<Chunk> chunks;
    std::int64_t budget = config_.max_num_batched_tokens;
    for (std::size_t i = results.size(); i < inputs.size(); ++i) {
      const auto length = static_cast<std::int64_t>(inputs[i].size());
      if (length > budget || static_cast<std::int64_t>(chunks.size()) == config_.max_num_seqs) break;
      budget -= length;
      chunks.push_back({inputs[i], 0, length, {}});
    }
    for (Chunk& chunk : chunks) chunk.blocks = held.take(chunk.count);
    const std::span<const float> rows = executor(output).run(chunk_step(chunks, pooling == Pooling::none));
    std::size_t row = 0;
    for (const Chunk& chunk : chunks) {
      const std::size_t count = pooling == Pooling::none ? static_cast<std::size_t>(chunk.count) : 1;
      const std::span<const float> own = rows.subspan(row * hidden, count * hidden);
      if (!std::ranges::all_of(own, [](float value) { return std::isfinite(value); })) {
        held.clear(*kv_memory_);  // a later step must not meet NaN in a block's unused slots
        throw Error(ErrorCode::numeric,
                    concat("input ", results.size(), ": the model's rows hold NaN or infinity; its weights or the ",
                           "dtype's range are at fault",
                           inputs.size() == 1 ? "" : "; the other inputs of this call are lost, encode them again"));
      }
      results.emplace_back(own.begin(), own.end());
      row += count;
    }
  }
  return results;
}

// ---- figures ---------------------------------------------------------------------------------------------------------

const Roofline& Engine::roofline() {
  const std::lock_guard one_step(stepping_);
  if (roofline_.flops_per_s == 0.0)
    roofline_ = device_->measure_roofline(config_.memory_budget ? std::optional(memory_.budget - memory_.total())
                                                                : std::nullopt);
  return roofline_;
}

std::vector<ExplainRow> Engine::explain(const StepShape& shape) {
  if (shape.sequences < 1 || shape.tokens < shape.sequences || shape.kv_tokens < shape.tokens)
    throw Error(ErrorCode::invalid_argument, "batch_size and tokens must be at least 1 and context at least tokens");
  const std::int64_t context = shape.kv_tokens / shape.sequences, new_tokens = shape.tokens / shape.sequences;
  if (context > config_.max_model_len || shape.tokens > config_.max_num_batched_tokens ||
      shape.sequences > config_.max_num_seqs)
    throw Error(ErrorCode::invalid_argument,
                concat("a step of ", shape.sequences, " x ", new_tokens, " tokens at context ", context,
                       " exceeds the engine's limits: ", config_.max_num_seqs, " sequences, ",
                       config_.max_num_batched_tokens, " tokens, context ", config_.max_model_len));
  const std::int64_t blocks = shape.sequences * KvBlockPool::blocks_for(context);
  if (blocks > kv_blocks_->total())  // not overloaded: to wait would not help
    throw Error(ErrorCode::out_of_memory,
                concat("a step of ", shape.sequences, " sequences at context ", context, " needs ", blocks,
                       " KV blocks and the cache has ", kv_blocks_->total(),
                       " in all; explain fewer sequences, a shorter context, or raise memory_budget or max_num_seqs"));
  const Roofline roof = roofline();
  const std::lock_guard one_step(stepping_);
  HeldBlocks held(*kv_blocks_, state_);
  const std::vector<std::int32_t> tokens(static_cast<std::size_t>(context), 0);
  std::vector<Chunk> chunks;
  chunks.reserve(static_cast<std::size_t>(shape.sequences));
  for (std::int64_t s = 0; s < shape.sequences; ++s)
    chunks.push_back({tokens, context - new_tokens, new_tokens, held.take(context)});
  Executor& runner = executor(default_output());
  const StepInput step = chunk_step(chunks, false);

  constexpr int repeats = 3;
  std::vector<double> best = runner.run_timed(step);
  for (int i = 1; i < repeats; ++i)
    std::ranges::transform(best, runner.run_timed(step), best.begin(),
                           [](double a, double b) { return std::min(a, b); });
  return explain_rows(runner.plan(), step.shape(), roof, [&](std::size_t op) { return runner.kernel_name(op); }, best);
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(state_);
  EngineStats stats = counters_;
  stats.kv_blocks_total = kv_blocks_->total();
  stats.kv_blocks_used = kv_blocks_->used();
  stats.running = scheduler_->running() + scheduler_->waiting();
  stats.bytes_weights = weights_->total_bytes();
  stats.bytes_kv = kv_memory_->total_bytes();
  stats.bytes_activations = workspace_.size();
  return stats;
}

}  // namespace lamella
