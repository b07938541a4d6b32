#include <algorithm>

#include "cpu/kernels/contracts.h"

namespace lamella::cpu {

std::size_t scratch_bytes(const ScratchBounds& bounds) {
  constexpr std::int64_t element = sizeof(float), line = 64;
  // The fused regions: a tile of normalised rows, then the fp32 results of one head (kernels/vector/fused_regions.h).
  const std::int64_t rows = (fused_token_tile * bounds.max_inputs * element + line - 1) / line * line;
  const std::int64_t fused = rows + fused_token_tile * bounds.max_head_dim * element;
  // Attention: the value sums of four queries for a part and for all, and the queries (kernels/vector/attention.h).
  const std::int64_t padded_dim = (bounds.max_head_dim + 15) / 16 * 16;
  const std::int64_t attention = 12 * padded_dim * element;
  return static_cast<std::size_t>((std::max(fused, attention) + line - 1) / line * line);
}

}  // namespace lamella::cpu
