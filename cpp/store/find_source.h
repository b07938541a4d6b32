// Which tensor each declared weight comes from.
#pragma once

#include <span>
#include <vector>

#include "io/tensor_table.h"
#include "model/load_recipe.h"
#include "model/weights.h"

namespace lamella {

struct FoundSource {
  const WeightDeclaration* weight;
  const WeightSource* source;
  const io::TensorEntry* tensor;
};

/// One entry a declaration, in their order; it points into the arguments. Errors: invalid_checkpoint where the recipe
/// has no source for a weight or the checkpoint no such tensor.
[[nodiscard]] std::vector<FoundSource> find_sources(std::span<const WeightDeclaration> declarations,
                                                    const LoadRecipe& recipe, const io::TensorTable& tensors);

}  // namespace lamella
