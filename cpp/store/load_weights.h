// Fills resident weights from a checkpoint, following a family's load recipe, or with random numbers.
#pragma once

#include <cstdint>
#include <functional>

#include "base/thread_team.h"
#include "io/tensor_table.h"
#include "memory/resident_weights.h"
#include "model/load_recipe.h"

namespace lamella {

/// Called with bytes of the checkpoint read so far and in all; from any thread, one at a time.
using LoadProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Reads every declared weight through `reader`, on all threads of `team`, in chunks of about a megabyte: cut,
/// transposed and reordered as its source says, expanded to fp32 and rounded to nearest-even where the dtype is bf16.
/// Errors: invalid_checkpoint where a weight has no source, a tensor is missing, has another shape or holds NaN or
/// infinity (tensor and row named); unsupported_model for element types that are no numbers of ours; io_error and
/// checkpoint_changed from the reader. After an error the weights hold no defined values.
void load_weights(ResidentWeights& weights, const LoadRecipe& recipe, const io::TensorTable& tensors,
                  io::Reader& reader, ThreadTeam& team, const LoadProgress& progress = {});

/// Normal numbers (standard deviation 0.02 for matrices, 1 for norm scales, 0 for biases) that depend only on seed,
/// weight and position: for shapes without a checkpoint.
void fill_random_weights(ResidentWeights& weights, std::uint64_t seed, ThreadTeam& team);

}  // namespace lamella
