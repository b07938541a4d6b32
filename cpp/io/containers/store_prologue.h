// The first 64 bytes of a packed store: enough to tell what it is, how long, and whether this version may read on.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lamella::io {

/// Little-endian, by offset:
///    0  magic "LAMELLA\0"
///    8  u32 version, 12 u32 zero
///   16  u64 required features: a reader that does not know one of the bits refuses the file
///   24  u64 bytes of the metadata, which follow the prologue
///   32  u64 bytes of the whole file
///   40  u64 XXH64 of the metadata
///   48  u64 zero
///   56  u64 XXH64 of bytes 0 to 55
/// Magic, version, features and the last checksum keep their places in all versions to come, so that an older reader
/// can tell a newer file from a damaged one.
struct StorePrologue {
  std::uint32_t version = 0;
  std::uint64_t features = 0;
  std::uint64_t metadata_bytes = 0;
  std::uint64_t file_bytes = 0;
  std::uint64_t metadata_xxh64 = 0;
};
inline constexpr std::size_t store_prologue_bytes = 64;
inline constexpr std::string_view store_magic{"LAMELLA\0", 8};

[[nodiscard]] std::array<std::byte, store_prologue_bytes> encode_store_prologue(const StorePrologue& prologue) noexcept;

/// Reads and checks the prologue at the start of `head`; `file_size` is the size of the file in truth. What it returns
/// fits the file: metadata of 1 to 100,000,000 bytes that end, padding included, inside it. Errors, naming `file`:
/// invalid_checkpoint; unsupported_model for a newer version or an unknown feature.
[[nodiscard]] StorePrologue decode_store_prologue(std::span<const std::byte> head, std::uint64_t file_size,
                                                  std::string_view file);

}  // namespace lamella::io
