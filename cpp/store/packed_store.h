// An open packed store (io/containers/store.h): its header, read and checked, and the file that holds the weights.
#pragma once

#include <filesystem>
#include <memory>

#include "io/containers/store.h"
#include "io/file.h"

namespace lamella {

struct PackedStore {
  std::shared_ptr<const io::File> file;
  io::StoreHeader header;
};

/// Opens a store file, or the one that a folder holds as model.lamella; reads the header and nothing else. Errors:
/// io_error for a path that does not exist; invalid_checkpoint for a folder without a store and for links that lead out
/// of it (io/path_rules.h); whatever read_store_header() throws.
[[nodiscard]] PackedStore open_store(const std::filesystem::path& path);

/// Whether open_store() is what opens the path: a folder with model.lamella, a file that begins as stores do, or one whose
/// name ends in .lamella. False for what cannot be opened.
[[nodiscard]] bool is_store(const std::filesystem::path& path);

}  // namespace lamella
