// Fills ranks' parts of a model's weights from a packed store, which knows nothing of ranks.
#pragma once

#include "base/thread_team.h"
#include "io/file.h"
#include "memory/resident_weights.h"
#include "store/load_weights.h"
#include "store/packed_store.h"

namespace lamella {

/// Reads, on all threads of `team`, what the declarations of every rank's weights name as their parts, and whole those that
/// name none. Of a matrix whose outputs are cut the panels that hold some of them are read, and of one whose inputs are cut
/// the words of each panel: at most a panel, or a word, too much at either end. The weights are those of the store's model in
/// the store's formats; anything else is a broken invariant. A segment's checksum is of all of it, so what is read is not
/// checked against it: io::verify_store does that. Errors: io_error and checkpoint_changed; whatever `progress` throws. After
/// an error the weights hold no defined values.
void load_parts(RankWeights ranks, const PackedStore& store, io::Reader& reader, ThreadTeam& team,
                const LoadProgress& progress = {});

/// Bytes that it will read.
[[nodiscard]] std::uint64_t bytes_of_parts(RankWeights ranks, const PackedStore& store);

}  // namespace lamella
