#include <algorithm>

#include "cpu/kernels/contracts.h"

namespace lamella::cpu {

std::size_t scratch_bytes(const ScratchBounds& bounds) {
  constexpr std::int64_t line = 64;
  const auto lines = [](std::int64_t bytes) { return (bytes + line - 1) / line * line; };
  const std::int64_t padded = (bounds.max_inputs + 7) / 8 * 8, blocks = (bounds.max_inputs + 31) / 32;
  // The forms of a tile of rows (kernels/vector/token_tile.h): fp32, pairs, codes with scales, sums and a rotated row.
  const std::int64_t forms = lines(token_tile * padded * 4) + lines(token_tile * padded * 2) +
                             lines(token_tile * padded * 2) + lines(token_tile * 4) +
                             lines(token_tile * (blocks + 1) * 4) + lines(padded * 4);
  // The fused regions: the fp32 results of one head and a tile of normalised rows besides (fused_regions.h).
  const std::int64_t fused =
      token_tile * head_stride(bounds.max_head_dim) * 4 + lines(token_tile * bounds.max_inputs * 4) + forms;
  // Embedding: two rows. Attention: the value sums of four queries for a part and for all, and the queries (attention.h).
  const std::int64_t rows = 2 * padded * 4, attention = 12 * ((bounds.max_head_dim + 15) / 16 * 16) * 4;
  return static_cast<std::size_t>(lines(std::max({fused, rows, attention})));
}

}  // namespace lamella::cpu
