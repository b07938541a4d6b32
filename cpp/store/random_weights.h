// Random weights for shapes without a checkpoint.
#pragma once

#include <cstdint>

#include "base/thread_team.h"
#include "memory/resident_weights.h"

namespace lamella {

/// Normal numbers (standard deviation 0.02 for matrices, 1 for norm scales, 0 for biases) that depend only on seed,
/// weight and position in the whole model, rounded or quantised to each weight's format, to the nearest code: ranks get parts
/// of the same numbers.
void fill_random_weights(RankWeights ranks, std::uint64_t seed, ThreadTeam& team);

}  // namespace lamella
