// Weights that stay in memory: one allocation, each weight at its own aligned place.
#pragma once

#include <span>
#include <vector>

#include "lamella/types.h"
#include "memory/allocation.h"
#include "model/weights.h"

namespace lamella {

/// Room for every declared weight: matrices in `dtype`, vectors in fp32, rows contiguous along the inputs. Whoever
/// loads fills the rooms through `bytes`; executors read them through `data`.
class ResidentWeights {
 public:
  /// Errors: out_of_memory.
  ResidentWeights(std::vector<WeightDeclaration> declarations, DataType dtype);

  [[nodiscard]] std::span<const WeightDeclaration> declarations() const noexcept { return declarations_; }
  [[nodiscard]] DataType dtype() const noexcept { return dtype_; }
  [[nodiscard]] DataType type_of(const WeightDeclaration& weight) const noexcept;
  [[nodiscard]] std::span<std::byte> bytes(const WeightId& id) const;
  [[nodiscard]] const void* data(const WeightId& id) const { return bytes(id).data(); }
  [[nodiscard]] std::size_t total_bytes() const noexcept { return memory_.size(); }

  /// Bytes that the declarations will take, alignment included, without taking them.
  [[nodiscard]] static std::size_t planned_bytes(std::span<const WeightDeclaration> declarations, DataType dtype);

 private:
  std::vector<WeightDeclaration> declarations_;
  std::vector<std::size_t> offsets_;
  DataType dtype_;
  Allocation memory_;
};

}  // namespace lamella
