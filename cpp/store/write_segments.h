// Segments of a packed store: packed on all threads, written to their places, hashed in the order of the file.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/thread_team.h"
#include "io/containers/store.h"
#include "io/output_file.h"
#include "io/tensor_table.h"
#include "model/load_recipe.h"

namespace lamella {

/// Where the bytes of a planned store come from and go to.
struct SegmentRoute {
  const io::StoreHeader& header;
  const LoadRecipe& recipe;
  const io::TensorTable& tensors;
  io::Reader& reader;
  io::OutputFile& file;
};

/// Called as pieces become part of the file, from any thread.
struct SegmentEvents {
  /// So many bytes more are written, padding included; one call at a time.
  std::function<void(std::uint64_t bytes)> written;
  /// A segment is written whole, and this is its XXH64; calls may overlap.
  std::function<void(std::uint32_t segment, std::uint64_t xxh64)> finished;
};

/// Writes every byte of `segments` (indices in the header, ascending), padding up to the next page included, and tells
/// `events`. A thread holds one piece of a weight (pieces.h) as stored and as packed. Errors: those of PieceList, RowWindow
/// and OutputFile, and whatever `events` throw.
void write_segments(const SegmentRoute& route, std::span<const std::uint32_t> segments, ThreadTeam& team,
                    const SegmentEvents& events);

/// Throws what write_segments would throw of recipe and tensors, before anything is written.
void check_sources(const io::StoreHeader& header, const LoadRecipe& recipe, const io::TensorTable& tensors);

}  // namespace lamella
