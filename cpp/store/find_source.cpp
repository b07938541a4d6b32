#include "store/find_source.h"

#include <map>
#include <string_view>

#include "base/check.h"

namespace lamella {

std::vector<FoundSource> find_sources(std::span<const WeightDeclaration> declarations, const LoadRecipe& recipe,
                                      const io::TensorTable& tensors) {
  std::map<std::string_view, const WeightSource*> sources;
  for (const WeightSource& source : recipe) sources.emplace(source.weight, &source);
  std::vector<FoundSource> found;
  for (const WeightDeclaration& weight : declarations) {
    const auto source = sources.find(to_string(weight.id));
    if (source == sources.end())
      throw Error(ErrorCode::invalid_checkpoint, concat("the recipe has no source for ", to_string(weight.id)));
    const io::TensorEntry* tensor = tensors.find(source->second->tensor);
    if (tensor == nullptr)
      throw Error(ErrorCode::invalid_checkpoint, concat("the checkpoint has no tensor ", quoted(source->second->tensor),
                                                        ", which ", to_string(weight.id), " needs"));
    found.push_back({&weight, source->second, tensor});
  }
  return found;
}

}  // namespace lamella
