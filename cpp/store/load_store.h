// Fills resident weights from a packed store, whose bytes are the weights' own.
#pragma once

#include "base/thread_team.h"
#include "io/file.h"
#include "memory/resident_weights.h"
#include "store/load_weights.h"
#include "store/packed_store.h"

namespace lamella {

/// Reads every segment once, on all threads of `team`, straight into the weights' places, and checks it against its
/// checksum on the way. Beside the weights it takes a few bytes for each megabyte of them. `weights` are those of the
/// store's model in the store's formats; anything else is a broken invariant.
/// Errors: invalid_checkpoint naming file and segment where bytes are damaged (of several segments one is named);
/// io_error and checkpoint_changed, also for damage to a file that was written to meanwhile; whatever `progress` throws.
/// After an error the weights hold no defined values.
void load_store(ResidentWeights& weights, const PackedStore& store, io::Reader& reader, ThreadTeam& team,
                const LoadProgress& progress = {});

}  // namespace lamella
