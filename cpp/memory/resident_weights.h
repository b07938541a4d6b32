// Weights that stay in memory: one allocation, each weight at its own aligned place.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "memory/allocation.h"
#include "memory/panels.h"
#include "model/weights.h"

namespace lamella {

/// Room for every declared weight: matrices packed in panels in their own formats, vectors in fp32; zero until it is
/// filled, padding included. Whoever loads fills the rooms through `bytes`; executors read through `matrix` and
/// `vector`.
class ResidentWeights {
 public:
  /// Errors: out_of_memory; invalid_checkpoint for sizes beyond 2^63 bytes; invalid_argument for a format that no
  /// kernel reads.
  explicit ResidentWeights(std::vector<WeightDeclaration> declarations);

  [[nodiscard]] std::span<const WeightDeclaration> declarations() const noexcept { return declarations_; }
  [[nodiscard]] PackedMatrix matrix(const WeightId& id) const;
  [[nodiscard]] const float* vector(const WeightId& id) const;
  /// The weight's whole room, to be filled.
  [[nodiscard]] std::span<std::byte> bytes(const WeightId& id) const;
  [[nodiscard]] std::size_t total_bytes() const noexcept { return memory_.size(); }

  /// Bytes that the declarations will take, alignment included, without taking them. Errors: as the constructor's.
  [[nodiscard]] static std::size_t planned_bytes(std::span<const WeightDeclaration> declarations);

 private:
  [[nodiscard]] std::size_t index_of(const WeightId& id) const;

  std::vector<WeightDeclaration> declarations_;
  std::map<WeightId, std::size_t> indices_;  // into both: a mixture has thousands of weights
  std::vector<std::size_t> offsets_;
  Allocation memory_;
};

/// The weights that one process fills: of one rank, or of all the ranks that are its threads.
using RankWeights = std::span<ResidentWeights* const>;

}  // namespace lamella
