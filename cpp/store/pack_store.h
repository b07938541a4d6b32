// Writing a packed store (io/containers/store.h) from any checkpoint: `lamella pack`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/thread_team.h"
#include "io/containers/store.h"
#include "io/tensor_table.h"
#include "model/load_recipe.h"

namespace lamella {

/// What becomes a store. `formats` are in the order of declare_weights(model); `dtype` and `source` go into the header.
struct PackInput {
  ModelSpec model;
  const LoadRecipe& recipe;
  const io::TensorTable& tensors;
  std::span<const WeightFormat> formats;
  DataType dtype = DataType::f32;
  std::map<std::string, std::string> source;
};

/// Where the store goes, and who is told what.
struct PackTarget {
  std::filesystem::path file;  // "<folder>/model.lamella"; the folder exists
  bool replace = false;        // a file that is there already
  /// Called with bytes of the store written so far, or found written, and in all; from any thread, one at a time. What
  /// it throws ends the packing as an error does.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
  /// Called with a sentence where an unfinished store is found that cannot be gone on with.
  std::function<void(std::string_view)> notice = {};
  /// Called once when the store is written and on the drive, and is about to get its name: what must be beside it then.
  std::function<void()> before_publishing = {};
  /// Finished segments are noted in the journal whenever they have so many bytes together: each time costs two waits for
  /// the drive, and at most so much and the unfinished segments are packed again.
  std::uint64_t record_bytes = std::uint64_t{64} << 20;
};

struct PackReport {
  std::string digest;
  std::uint64_t file_bytes = 0;
  std::uint64_t segments = 0;
  std::uint64_t kept_segments = 0, kept_bytes = 0;  // found written by a packing that was cut short; with padding
};

/// Packs a model into target.file, on all threads of `team`. The bytes depend on the input alone: not on the number of
/// threads, the instruction set, or how often the work was cut short.
///
/// Memory: about sixteen megabytes a thread, or three times 64 rows of a weight where these are longer, whatever the
/// size of model and segments; and the header. A piece (pieces.h) is packed, written to its place, and then, in the order
/// of the file, hashed: the checksum is of what was meant to be written, without reading it again.
///
/// Unfinished, the store is "<file>.partial", whose first page stays zero to the end, with "<file>.journal" beside it.
/// After an error, or when the process was killed at any moment, the same call goes on from the segments that the journal
/// names and whose bytes still have their checksum. A call with another input starts afresh. The finished file appears
/// under its name by renaming, when all of it is on the drive, and the other two are gone.
///
/// Errors: io_error where the file exists and is not to be replaced, where another process packs into it, where somebody
/// removed or replaced the unfinished store or its journal meanwhile, or the operating system refuses; and whatever
/// plan_store, find_sources, SourceRows and RowWindow throw. Where nothing could be gone on with, nothing is left behind:
/// of an input that is damaged or has changed, and of a drive that is too small.
[[nodiscard]] PackReport pack_store(const PackInput& input, const PackTarget& target, io::Reader& reader,
                                    ThreadTeam& team);

/// The names of what stands beside a store that is being packed.
[[nodiscard]] std::filesystem::path partial_path(const std::filesystem::path& store);
[[nodiscard]] std::filesystem::path journal_path(const std::filesystem::path& store);

}  // namespace lamella
