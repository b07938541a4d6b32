// Parts of packed matrices, packed again: what a rank holds of a weight that is cut across several.
#pragma once

#include <cstddef>
#include <span>

#include "memory/panels.h"
#include "model/weights.h"

namespace lamella {

/// Outputs [outputs.begin, outputs.end) of `from`, and their inputs from `first_input` on.
struct PartSource {
  const PackedMatrix& from;
  ShardRange outputs;
  std::int64_t first_input = 0;
};

/// Copies them to the outputs from `first_output` on of a packed matrix of the same format: `room`, zero there, laid out as `to`,
/// whose inputs are as many as are wanted of each output. Errors: internal where inputs are cut within a group of codes.
void copy_outputs(const PartSource& source, std::span<std::byte> room, const PanelLayout& to,
                  std::int64_t first_output);

/// Fills `room`, which is zero and as large as the part packed by itself, with the part's outputs and inputs of `whole`: the same
/// numbers, codes and scales. Errors: internal for a part that is not in the matrix, or that cannot be cut out of it.
void copy_part(const PackedMatrix& whole, const WeightPart& part, std::span<std::byte> room);

}  // namespace lamella
