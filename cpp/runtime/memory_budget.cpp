#include "runtime/memory_budget.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "base/check.h"

namespace lamella {
namespace {

/// Left to the process itself and to others where the user gave no budget.
constexpr double usable_share = 0.9;

std::string bytes_text(std::uint64_t bytes, bool round_up) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < std::size(units)) {
    value /= 1024.0;
    ++unit;
  }
  if (round_up) value = std::ceil(value * 100.0) / 100.0;
  std::ostringstream out;
  out << std::fixed << std::setprecision(unit == 0 ? 0 : 2) << value << " " << units[unit];
  return std::move(out).str();
}

std::string table(const BudgetRequest& request, const MemorySplit& split) {
  return concat("weights ", human_bytes(split.weights), ", KV cache ", human_bytes(split.kv), ", activations ",
                human_bytes(split.activations), ", together ", human_bytes(split.total()), ", budget ",
                human_bytes(split.budget), ", free on this machine ", human_bytes(request.available));
}

/// What the user could change, best first; `limit` is what the split exceeds. A size that is advised is rounded up:
/// given as it stands, it fits.
std::string advice(const BudgetRequest& request, const MemorySplit& split, std::uint64_t limit) {
  const std::uint64_t fixed_part = request.weights + request.activations;
  const bool scarce = split.total() > request.available;  // a larger budget would promise what is not there
  const std::string enough = concat(scarce ? "" : "memory_budget (--memory-budget) of ", "at least ",
                                    bytes_text(split.total(), true), scarce ? " of free memory" : "");
  if (fixed_part >= limit)
    return concat("the weights and activations alone exceed ", scarce ? "what is free" : "it", ": give ", enough,
                  ", a smaller max_num_batched_tokens, dtype bfloat16, quantization int8_weight_only or int4, or a "
                  "smaller model");
  const std::uint64_t blocks = (limit - fixed_part) / request.kv_bytes_per_block;
  if (!request.keeps_kv || blocks == 0)  // an encoder's blocks hold one step, whatever its context
    return concat(enough, " would fit, or fewer max_num_batched_tokens or max_num_seqs");
  if (request.kv)
    return concat("kv_cache_memory (--kv-cache-memory) of at most ", bytes_text(limit - fixed_part, false),
                  " would fit, or ", enough);
  const std::int64_t fit = request.retention.tokens_within(static_cast<std::int64_t>(blocks), request.max_model_len);
  if (fit == 0 || fit == request.max_model_len) return concat(enough, " would fit");
  return concat("max_model_len=", fit, " (--max-model-len ", fit, ") would fit, or ", enough);
}

}  // namespace

std::string human_bytes(std::uint64_t bytes) { return bytes_text(bytes, false); }

MemorySplit split_memory(const BudgetRequest& request) {
  MemorySplit split{.weights = request.weights, .activations = request.activations};
  split.budget =
      request.budget.value_or(static_cast<std::uint64_t>(usable_share * static_cast<double>(request.available)));

  const std::int64_t one =
      request.retention.most_blocks(request.keeps_kv ? request.max_model_len : request.step_tokens);
  // An encoder's step holds whole sequences, each rounded up to blocks.
  const std::int64_t wanted = request.keeps_kv ? one * request.max_num_seqs : one + request.max_num_seqs;
  const std::int64_t least = request.keeps_kv ? one : wanted;
  const std::uint64_t limit = std::min(split.budget, request.available);
  const std::uint64_t fixed_part = split.total();
  const std::uint64_t left = limit > fixed_part ? limit - fixed_part : 0;
  const std::uint64_t share = request.budget ? left / 2 : left / 4;
  const auto affordable =
      request.kv_bytes_per_block == 0 ? wanted : static_cast<std::int64_t>(share / request.kv_bytes_per_block);
  split.kv_blocks = std::max(least, std::min(wanted, affordable));
  if (request.kv && request.keeps_kv && request.kv_bytes_per_block > 0) {
    split.kv_blocks = static_cast<std::int64_t>(*request.kv / request.kv_bytes_per_block);
    if (split.kv_blocks == 0)
      throw Error(ErrorCode::invalid_argument,
                  concat("kv_cache_memory is ", human_bytes(*request.kv), "; expected at least ",
                         bytes_text(request.kv_bytes_per_block, true), ", which a block of ", kv_block_tokens,
                         " tokens takes"));
  }
  split.kv = static_cast<std::uint64_t>(split.kv_blocks) * request.kv_bytes_per_block;
  if (split.total() > limit)
    throw Error(ErrorCode::out_of_memory,
                concat("the model does not fit: ", table(request, split), "; ", advice(request, split, limit)));
  return split;
}

}  // namespace lamella
