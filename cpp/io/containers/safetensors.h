// The safetensors container: an 8-byte length, a JSON header, and the tensors' bytes without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "io/tensor_table.h"

namespace lamella::io {

/// Parses a header from memory. `head` begins with the file's first byte and holds at least the length and the header
/// (more does no harm); `file_size` is the size of the whole file, whose data bytes are not looked at. The table's
/// entries have file 0 and offsets from the start of the file; its `files` is empty. `file` names the file in errors.
///
/// Whatever the `safetensors` package refuses is refused, and nothing it refuses is accepted (a test with a million
/// mutated files keeps that so). On top of that these rules are stricter than the package, version 0.8; the tag stands
/// in the message:
///   S1  the header begins with '{': no white space before it (A6)
///   S2  tensor names are 1 to 1,024 bytes without NUL (A6, P3)
///   S3  a tensor's description is an object of exactly dtype, shape and data_offsets; no further keys, no array form
///   S4  at most 8 dimensions (P3)
///   S5  no dimension above 2^48, and the product of the dimensions other than 0 fits 63 bits (A4)
///   S6  `__metadata__`, where present, is an object of strings, at most 4,096 of them (A6)
///   S7  at most 1,000,000 tensors (P3)
///   S8  every element type is one of StorageType: not F4, F6_*, F8_E8M0, F8_*FNUZ, C64 (A5; unsupported_model)
///   J1  no nesting beyond 64 (P3; the package stops at 128)
///   J2  no key twice in an object (A6; the package keeps the last)
///   J4  no number out of range, also in places that the package skips
[[nodiscard]] TensorTable parse_safetensors_header(std::span<const std::byte> head, std::uint64_t file_size,
                                                   std::string_view file);

/// One open safetensors file as a table. Reads the header only.
[[nodiscard]] TensorTable read_safetensors_file(const std::shared_ptr<const File>& file);

/// A model folder (model.safetensors, else model.safetensors.index.json and its shards), an index file, or one
/// safetensors file, as a table. Files of a folder are opened under the rules of path_rules.h.
[[nodiscard]] TensorTable read_safetensors(const std::filesystem::path& model_folder_or_file);

}  // namespace lamella::io
