// Parts of packed matrices, packed again: what a rank holds of a weight that is cut across several.
#pragma once

#include <cstddef>
#include <span>

#include "memory/panels.h"
#include "model/weights.h"

namespace lamella {

/// Fills `room`, which is zero and as large as the part packed by itself, with the part's outputs and inputs of `whole`: the same
/// numbers, codes and scales. Errors: internal for a part that is not in the matrix, or that cannot be cut out of it.
void copy_part(const PackedMatrix& whole, const WeightPart& part, std::span<std::byte> room);

}  // namespace lamella
