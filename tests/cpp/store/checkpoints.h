// Random checkpoints on disk for tests of packing: fused and transposed tensors, floats and GGUF blocks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/tensor_table.h"
#include "model/load_recipe.h"
#include "model/model_spec.h"
#include "model/weights.h"

namespace lamella::testing {

/// A file of random numbers with a tensor for every weight of `spec`, in the `types` in turn (F32 where rows are no whole
/// blocks). Queries, keys and values of gpt2_like are thirds of one tensor, stored by columns; those of neox_like are
/// fused head by head; llama_like's rows of queries and keys stand in pairs.
class RandomCheckpoint {
 public:
  RandomCheckpoint(const std::filesystem::path& path, const ModelSpec& spec, std::uint64_t seed,
                   std::vector<io::StorageType> types = {io::StorageType::f32});

  /// Opens the file again, as the next process would.
  void reopen();

  [[nodiscard]] const ModelSpec& spec() const noexcept { return spec_; }
  [[nodiscard]] const LoadRecipe& recipe() const noexcept { return recipe_; }
  [[nodiscard]] const io::TensorTable& tensors() const noexcept { return tensors_; }

 private:
  void add(const WeightDeclaration& weight, WeightSource source);

  std::filesystem::path path_;
  ModelSpec spec_;
  std::uint64_t seed_;
  std::vector<io::StorageType> types_;
  std::string bytes_;
  LoadRecipe recipe_;
  io::TensorTable tensors_;
};

}  // namespace lamella::testing
