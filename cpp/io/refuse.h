// How the readers of checkpoints say no: errors that name the file first, and carry little of what an attacker wrote.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "lamella/error.h"

namespace lamella::io {

/// Throws Error(invalid_checkpoint): "<file>: <parts>".
template <typename... Parts>
[[noreturn]] void refuse(std::string_view file, const Parts&... parts) {
  throw Error(ErrorCode::invalid_checkpoint, concat(file, ": ", parts...));
}

/// Throws Error(unsupported_model): "<file>: <parts>". For sound files that ask for what the engine does not have.
template <typename... Parts>
[[noreturn]] void refuse_unsupported(std::string_view file, const Parts&... parts) {
  throw Error(ErrorCode::unsupported_model, concat(file, ": ", parts...));
}

/// Throws Error(io_error) for `code` (an errno): "<file>: <doing>: No such file or directory (errno 2)<remedy>".
[[noreturn]] void throw_io_error(std::string_view file, std::string_view doing, int code, std::string_view remedy = "");

/// Untrusted text for a message, quoted, escaped, at most 256 bytes: `quoted` of check.h. Its own name, because for a
/// std::string argument-dependent lookup finds std::quoted first, which neither escapes nor stops.
[[nodiscard]] std::string shown(std::string_view text);

/// A name from a file for a message that holds two of them: at most its first 96 bytes, quoted and escaped.
[[nodiscard]] std::string brief(std::string_view name);

/// The first names of a list, at most ten and about 256 bytes, then how many more there are.
[[nodiscard]] std::string brief_list(const std::vector<std::string>& names);

/// Throws when a tensor's name breaks P3: 1 to 1,024 bytes, no NUL. `tag` ends the message (" [S2]").
void check_tensor_name(std::string_view name, std::string_view file, std::string_view tag = "");

/// Throws when the file's first bytes are the text that git-lfs leaves in place of a file it has not fetched.
void refuse_lfs_pointer(std::span<const std::byte> head, std::string_view file);

/// The bytes as characters, without a copy.
[[nodiscard]] inline std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace lamella::io
