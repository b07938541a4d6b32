// y = x W^T, alone, and the walk over its outputs that region 4 shares.
#pragma once

#include "cpu/kernels/vector/product.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Outputs are shared among workers in whole groups, so that no two of them write the same cache line of fp32 results.
constexpr std::int64_t output_group = 16;
/// Widest block of outputs whose fp32 results wait in a tile for the epilogue: 32 tokens x 64 outputs are 8 KiB.
constexpr std::int64_t block_outputs = 64;

/// The outputs of a matrix that fall to a worker.
LAMELLA_INLINE Range share_outputs(std::int64_t outputs, const Worker& worker) {
  const Range groups = share((outputs + output_group - 1) / output_group, worker);
  return {groups.begin * output_group, smaller(groups.end * output_group, outputs)};
}

/// Multiplies all tokens by the weight rows of `mine` and calls epilogue(row, token, first output, outputs) for every
/// row of every fp32 tile. Weights come from memory once: a block of 64 rows, which the second-level cache holds, meets
/// all tokens.
template <typename T, typename Epilogue>
LAMELLA_INLINE void multiply_blocks(const T* x, const T* weight, std::int64_t tokens, std::int64_t inputs,
                                    const Range& mine, Epilogue epilogue) {
  alignas(64) float tile[product_tokens * block_outputs];
  for (std::int64_t o = mine.begin; o < mine.end; o += block_outputs) {
    const std::int64_t outputs = smaller(block_outputs, mine.end - o);
    const T* rows = weight + o * inputs;
    for (std::int64_t t = 0; t < tokens; t += product_tokens) {
      const std::int64_t count = smaller(product_tokens, tokens - t);
      const bool last_tile = t + count == tokens, last_block = o + outputs == mine.end;
      const T* next = last_tile && !last_block ? rows + outputs * inputs : rows;
      multiply<T>({x + t * inputs, inputs, inputs}, rows, count, outputs, tile, block_outputs, next);
      for (std::int64_t i = 0; i < count; ++i) epilogue(tile + i * block_outputs, t + i, o, outputs);
    }
  }
}

template <typename T, typename Y>
void linear_into(const LinearArgs& a, const Worker& worker) {
  multiply_blocks(static_cast<const T*>(a.x), static_cast<const T*>(a.weight), a.tokens, a.inputs,
                  share_outputs(a.outputs, worker),
                  [&](const float* row, std::int64_t t, std::int64_t o, std::int64_t outputs) LAMELLA_BODY {
                    Y* y = static_cast<Y*>(a.y) + t * a.outputs + o;
                    each_vector(outputs, [&](std::int64_t i, int count)
                                             LAMELLA_BODY { store(y + i, load(row + i, count), count); });
                  });
}

template <typename T>
void linear(const LinearArgs& a, const Worker& worker) {
  if (a.y_f32) linear_into<T, float>(a, worker);
  else linear_into<T, T>(a, worker);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
