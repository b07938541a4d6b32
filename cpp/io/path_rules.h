// Which files of a model folder may be opened: reliability.md A9, A10 and promise P2.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include "io/file.h"

namespace lamella::io {

/// The real path of file `name` of the model folder, or nothing when there is no such file (or its link dangles). The
/// folder is the operator's and trusted; the name may come from an index file and is not. Rules, each an
/// invalid_checkpoint:
///  - the name is one plain component: 1 to 255 bytes, no '/', '\' or control character, neither "." nor "..";
///  - what it leads to, links resolved, lies in the folder, or directly in `blobs` of the same Hugging Face cache
///    repository (the folder being models--*/snapshots/<revision>).
/// A loop of links or an unreadable folder is an io_error.
[[nodiscard]] std::optional<std::filesystem::path> find_model_file(const std::filesystem::path& folder,
                                                                   std::string_view name);

/// As find_model_file; a missing file is an invalid_checkpoint that names it.
[[nodiscard]] std::filesystem::path check_model_file(const std::filesystem::path& folder, std::string_view name);

/// Opens what find_model_file returned; a link put in its way since then is refused.
[[nodiscard]] std::shared_ptr<const File> open_resolved(const std::filesystem::path& resolved);

}  // namespace lamella::io
