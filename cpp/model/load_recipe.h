// How a checkpoint's tensors become canonical weights: one source per declared weight, written by the family file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lamella {

/// Where one canonical weight comes from. The source tensor (after `transposed`) is seen as rows of `columns` elements;
/// those rows are seen as [groups][parts][rows per part], and `part` picks one part of every group:
///   GPT-2  c_attn:           groups 1, parts 3 -> q, k, v     (transposed: stored [inputs, outputs])
///   GPT-NeoX query_key_value: groups = heads, parts 3 -> q, k, v of each head
/// `rotary_pair_heads`: rows of each head alternate (0, d/2, 1, d/2+1, ...) as GGUF stores llama's q and k; loading
/// undoes it. A vector (bias) is a matrix of one column here, so the same fields cut fused biases.
struct WeightSource {
  std::string weight;  // canonical name, weights.h
  std::string tensor;  // the container's name
  bool transposed = false;
  std::int64_t groups = 1;
  std::int64_t parts = 1;
  std::int64_t part = 0;
  std::int64_t rotary_pair_heads = 0;  // number of heads whose rows alternate; 0: rows are in order
};

/// One source per declared weight, in any order.
using LoadRecipe = std::vector<WeightSource>;

}  // namespace lamella
