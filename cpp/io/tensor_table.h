// What a checkpoint holds, whichever container it came in: a list of named tensors and where their bytes lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/file.h"

namespace lamella::io {

/// An element or block type as a container stores it. Names are the containers' own: safetensors' and ggml's.
enum class StorageType : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq1_s,
  iq1_m,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq4_nl,
  iq4_xs,
  tq1_0,
  tq2_0,
  mxfp4,
  nvfp4,
};

/// How a storage type is laid out: `elements` consecutive elements along the last dimension take `bytes` bytes.
struct StorageTraits {
  std::string_view name;
  std::uint32_t elements;
  std::uint32_t bytes;
};
[[nodiscard]] const StorageTraits& traits(StorageType type) noexcept;

/// One tensor: rows contiguous along the last dimension, bytes [offset, offset + bytes) of `files[file]`.
struct TensorEntry {
  std::string name;
  std::uint32_t file = 0;
  std::uint64_t offset = 0;  // bytes from the start of the file
  std::uint64_t bytes = 0;
  StorageType type = StorageType::f32;
  std::vector<std::int64_t> shape;  // outermost first, whatever the container's own order is
};

/// The element type of a packed metadata array.
enum class NumberType : std::uint8_t { u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, boolean };

/// A metadata array of numbers, kept as the container's little-endian bytes: one MetadataValue of 40 bytes for every
/// u8 of a tokenizer's table would take forty times the input, and parsing may take eight.
struct MetadataNumbers {
  NumberType type = NumberType::u8;
  std::vector<std::byte> bytes;

  [[nodiscard]] std::size_t size() const noexcept;
};

/// A value of a container's metadata (GGUF key-values; safetensors' `__metadata__` gives strings). Arrays of numbers
/// are MetadataNumbers; arrays of strings and of arrays are MetadataArray. Strings are bytes: GGUF does not promise
/// UTF-8 in values.
struct MetadataValue;
using MetadataArray = std::vector<MetadataValue>;
struct MetadataValue {
  std::variant<bool, std::int64_t, std::uint64_t, double, std::string, MetadataArray, MetadataNumbers> value;
};

/// Element `index` of a packed array, as the alternative (bool, int64, uint64, double) that fits its type.
[[nodiscard]] MetadataValue number_at(const MetadataNumbers& numbers, std::size_t index);

/// All tensors of a checkpoint, sorted by name, with the open files that hold them. Owns the files: they stay open
/// (and so stay the same files) for as long as the table lives.
struct TensorTable {
  std::vector<std::shared_ptr<const File>> files;
  std::vector<TensorEntry> tensors;
  std::map<std::string, MetadataValue, std::less<>> metadata;

  /// The tensor of that name, or nullptr.
  [[nodiscard]] const TensorEntry* find(std::string_view name) const noexcept;
};

}  // namespace lamella::io
