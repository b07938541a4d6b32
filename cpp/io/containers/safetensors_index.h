// Checkpoints in several safetensors files: model.safetensors.index.json and its shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/tensor_table.h"

namespace lamella::io {

/// What an index file says: which shard holds which tensor.
struct SafetensorsIndex {
  struct Listing {
    std::string tensor;
    std::uint32_t shard;  // into `shards`
  };
  std::vector<std::string> shards;         // file names, not yet checked against the path rules; sorted
  std::vector<Listing> listings;           // sorted by tensor
  std::optional<std::uint64_t> total_size;  // bytes of all tensors, where `metadata` says it
};

/// Parses the text of an index (at most 64 MiB). `file` names it in errors.
[[nodiscard]] SafetensorsIndex parse_safetensors_index(std::string_view text, std::string_view file);

/// Opens `folder/index_name` and all its shards as one table. The index and the shards must agree: each shard is there
/// (missing ones are listed together), each listed tensor is in its shard and in no other, no shard holds an unlisted
/// tensor, and `total_size` is right where it is given.
[[nodiscard]] TensorTable read_sharded_safetensors(const std::filesystem::path& folder, std::string_view index_name);

}  // namespace lamella::io
