// Fills resident weights from a checkpoint, following a family's load recipe.
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

/// Reads every declared weight of every rank through `reader`, on all threads of `team`, piece by piece (store/pieces.h):
/// cut, transposed and reordered as its source says, then packed in its declared format. What several ranks hold is read
/// for each of them. A thread holds at most about sixteen
/// megabytes beside the weights, or 64 rows where these are longer. The result does not depend on the number of threads.
/// Errors: invalid_checkpoint where a weight has no source, a tensor is missing, has another shape or holds NaN,
/// infinity or a number beyond the format (tensor and row named); unsupported_model for element types that are no
/// numbers of ours; io_error and checkpoint_changed from the reader. After an error the weights hold no defined values.
void load_weights(RankWeights ranks, const LoadRecipe& recipe, const io::TensorTable& tensors, io::Reader& reader,
                  ThreadTeam& team, const LoadProgress& progress = {});

}  // namespace lamella
