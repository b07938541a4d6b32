#include <algorithm>

#include "cpu/kernels/contracts.h"

namespace lamella::cpu {
namespace {

constexpr std::int64_t lines(std::int64_t bytes) noexcept { return (bytes + 63) / 64 * 64; }

/// A tile of rows in any form (kernels/vector/token_tile.h): at most four bytes an element; of codes the scales, the
/// totals and the group sums.
std::int64_t input_tile_bytes(std::int64_t tokens, std::int64_t inputs) noexcept {
  return lines(tokens * ((inputs + 7) / 8 * 8) * 4) + 2 * lines(tokens * 4) + lines(tokens * ((inputs + 31) / 32) * 4);
}

}  // namespace

std::size_t scratch_bytes(const ScratchBounds& bounds) {
  const std::int64_t padded = (bounds.max_inputs + 7) / 8 * 8;
  // Room for a block of rows on its way to a form, two forms of a tile, and the fp32 results of a head, or of a panel and
  // its gate.
  const std::int64_t row = 2 * lines(padded * 4) + lines(padded) + lines(block_tokens * padded * 4) +
                           lines((bounds.max_inputs + 127) / 128 * 16),
                     results = shared_tile_tokens * std::max(2 * panel_outputs, head_stride(bounds.max_head_dim)) * 4;
  const std::int64_t linear = row + 2 * input_tile_bytes(token_tile, bounds.max_inputs) + results;
  // Embedding: two rows. Attention: a row, and of every row of a tile its query, two value sums and its scores
  // (attention.h).
  const std::int64_t rows = 2 * padded * 4,
                     query = (bounds.max_head_dim + 2 * attention_query_chunk - 1) / attention_query_chunk *
                             attention_query_chunk,
                     attention = (kv_padded(bounds.max_head_dim) * (2 * attention_tile_rows + 1) +
                                  attention_tile_rows * (query + attention_part_tokens)) *
                                 4;
  return static_cast<std::size_t>(lines(std::max({linear, rows, attention})));
}

std::size_t shared_bytes(const ScratchBounds& bounds) {
  const std::int64_t inputs = input_tile_bytes(std::min(bounds.max_tokens, shared_tile_tokens), bounds.max_inputs);
  // Of every worker the merged parts of one context, and every part of another (kernels/vector/attention_split.h).
  const std::int64_t parts = (bounds.max_context + attention_part_tokens - 1) / attention_part_tokens,
                     kept = bounds.workers * (parts + 1) * std::min(bounds.split_group, attention_tile_rows) *
                            kept_row(kv_padded(bounds.max_head_dim)) * 4;
  const std::int64_t best = lines(bounds.workers * bounds.max_rows * 8);  // kernels/vector/greedy_head.h
  const std::int64_t routed =
      bounds.max_experts == 0
          ? 0
          : lines(route_room(bounds.max_tokens, bounds.max_experts, bounds.max_top_k, bounds.workers));
  return static_cast<std::size_t>(std::max(inputs + std::max(best, routed), kept));
}

bool split_contexts(const AttentionArgs& args, std::int64_t kv_tokens, int workers) noexcept {
  if (args.tokens != args.kv.sequence_count || args.kv.kv_heads % workers == 0) return false;
  const std::int64_t context = kv_tokens / args.kv.sequence_count;
  return (args.window > 0 ? std::min(context, args.window) : context) > attention_part_tokens;
}

bool share_inputs(const LinearArgs& args) noexcept { return args.tokens >= shared_inputs_from; }

bool share_inputs(const NormQkvArgs& args) noexcept {
  return args.tokens >= shared_inputs_from && args.query.weight.format == args.key.weight.format &&
         args.query.weight.format == args.value.weight.format;
}

bool share_inputs(const NormMlpUpArgs& args) noexcept {
  return args.tokens >= shared_inputs_from &&
         (args.gate.weight.data == nullptr || args.gate.weight.format == args.up.weight.format);
}

bool share_inputs(const OutputResidualArgs& args) noexcept { return args.tokens >= shared_inputs_from; }

bool share_inputs(const GreedyHeadArgs& args) noexcept { return args.tokens >= shared_inputs_from; }

bool share_inputs(const NormRouteArgs& args) noexcept {
  return args.tokens >= shared_inputs_from &&
         (args.shared_router.data == nullptr || args.shared_router.format == args.router.format);
}

}  // namespace lamella::cpu
