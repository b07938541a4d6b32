// What the fuzz targets share. Each defines LLVMFuzzerTestOneInput; libFuzzer's main drives it under clang,
// replay.cpp's under gcc.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

#include "io/tensor_table.h"
#include "lamella/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace lamella::fuzz {

/// Stops the fuzzer with the input that broke a promise.
inline void require(bool holds, std::string_view promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %.*s\n", static_cast<int>(promise.size()), promise.data());
  std::abort();
}

/// Runs a parser and holds it to its promises: no exception but Error, no code but the two for bad files, a bounded
/// message.
template <typename Parse>
void expect_only_refusals(Parse parse) {
  try {
    parse();
  } catch (const Error& error) {
    require(error.code() == ErrorCode::invalid_checkpoint || error.code() == ErrorCode::unsupported_model,
            error.what());
    const std::string_view message = error.what();
    require(message.size() < 1500, "a short message");
    require(std::all_of(message.begin(), message.end(), [](char c) { return c >= 0x20 && c < 0x7f; }),
            "a printable message");
  }
}

/// What every accepted table promises: sorted unique names within P3, tensors inside the file, sizes that fit the
/// shapes.
inline void check_table(const io::TensorTable& table, std::uint64_t file_size) {
  const io::TensorEntry* before = nullptr;
  for (const io::TensorEntry& entry : table.tensors) {
    require(before == nullptr || before->name < entry.name, "sorted unique names");
    require(!entry.name.empty() && entry.name.size() <= 1024, "names of 1 to 1,024 bytes");
    require(entry.shape.size() <= 8, "at most 8 dimensions");
    require(entry.offset <= file_size && entry.bytes <= file_size - entry.offset, "tensors inside the file");
    unsigned __int128 elements = 1;
    for (const std::int64_t dim : entry.shape) {
      require(dim >= 0 && dim <= std::int64_t{1} << 48, "dimensions from 0 to 2^48");
      elements *= static_cast<unsigned __int128>(dim);
    }
    const io::StorageTraits& layout = io::traits(entry.type);
    require(elements / layout.elements * layout.bytes == entry.bytes, "bytes that fit shape and type");
    require(table.find(entry.name) == &entry, "find() finds it");
    before = &entry;
  }
}

}  // namespace lamella::fuzz
