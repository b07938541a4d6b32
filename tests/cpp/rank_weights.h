// The weights of one rank as a list of ranks' weights, for what fills several.
#pragma once

#include <array>

#include "memory/resident_weights.h"

namespace lamella::testing {

inline std::array<ResidentWeights*, 1> only(ResidentWeights& weights) { return {&weights}; }

}  // namespace lamella::testing
