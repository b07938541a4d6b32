// A rank's weights cut out of the whole model's, for tests.
#pragma once

#include <algorithm>

#include "memory/matrix_part.h"
#include "memory/resident_weights.h"

namespace lamella::testing {

/// Fills `own`, whose declarations name their parts, from the whole.
inline void take_parts(const ResidentWeights& whole, ResidentWeights& own) {
  for (const WeightDeclaration& weight : own.declarations()) {
    const std::span<std::byte> room = own.bytes(weight.id);
    if (!weight.part) {
      std::ranges::copy(whole.bytes(weight.id), room.begin());
    } else if (is_vector(weight.id.slot)) {
      auto* to = reinterpret_cast<float*>(room.data());
      for (const ShardRange& run : weight.part.outputs)
        to = std::copy_n(whole.vector(weight.id) + run.begin, run.size(), to);
    } else {
      copy_part(whole.matrix(weight.id), weight.part, room);
    }
  }
}

}  // namespace lamella::testing
