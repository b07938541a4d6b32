// The GGUF container: typed key-values, tensor descriptions, and the tensors' bytes, each aligned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <variant>

#include "io/tensor_table.h"

namespace lamella::io {

/// `parse_gguf` got too short a piece of the file: it needs at least the first `bytes` bytes (never more than the file
/// has).
struct NeedMore {
  std::uint64_t bytes;
};

/// Parses the part of a GGUF file (versions 2 and 3, little-endian) that comes before the tensors' data, from memory.
/// `head` holds the file's first bytes; GGUF does not say how long its header is, so ask again with more when NeedMore
/// comes back. `file_size` is the size of the whole file; the data bytes are not looked at. Shapes are reversed into
/// outermost-first order, entries have file 0 and offsets from the start of the file. `file` names the file in errors.
///
/// Refused as invalid_checkpoint: lengths and counts beyond the file or beyond P3; a repeated or malformed key; a
/// tensor name twice, empty, above 1,024 bytes or with NUL; more than 8 dimensions, a dimension above 2^48, products
/// that overflow; rows that do not divide into blocks; tensors that are unaligned, overlap, leave a hole wider than
/// the alignment asks for, or lie past the end; and bytes after the last tensor beyond its padding. As
/// unsupported_model: version 1, big-endian files, split files, and element types without a StorageType (Q8_1,
/// Q8_K, Q1_0, ...), naming the tensor.
[[nodiscard]] std::variant<TensorTable, NeedMore> parse_gguf(std::span<const std::byte> head, std::uint64_t file_size,
                                                             std::string_view file);

/// A GGUF file as a table. Reads the header only.
[[nodiscard]] TensorTable read_gguf(const std::filesystem::path& path);

}  // namespace lamella::io
