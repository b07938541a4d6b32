#include "io/containers/safetensors_index.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "io/containers/json.h"
#include "io/containers/limits.h"
#include "io/containers/safetensors.h"
#include "io/path_rules.h"
#include "io/refuse.h"

namespace lamella::io {
namespace {

/// `metadata.total_size` as a count of bytes: transformers wrote it as an integer, and for some time as a float
/// (1.3e10).
std::optional<std::uint64_t> total_size(json::Value metadata, std::string_view file) {
  std::optional<std::uint64_t> size;
  metadata.members([&](json::Value key, json::Value value) {
    if (!key.equals("total_size")) return;
    size = value.digits();
    if (size) return;
    constexpr double largest = 9007199254740992.0;  // 2^53: up to here a double holds every whole number
    const json::Number number = value.is(json::Kind::number) ? value.number() : json::Number(-1.0);
    const auto* written = std::get_if<double>(&number);
    if (!written || *written < 0 || *written > largest ||
        *written != static_cast<double>(static_cast<std::uint64_t>(*written)))
      refuse(file, "metadata.total_size at byte ", value.offset(), " is not a number of bytes");
    size = static_cast<std::uint64_t>(*written);
  });
  return size;
}

using Names = std::map<std::string, std::uint32_t, std::less<>>;

/// The distinct shard names of a weight map, numbered in order.
Names shard_names(json::Value weight_map, std::string_view file) {
  Names shards;
  weight_map.members([&](json::Value tensor, json::Value shard) {
    if (!shard.is(json::Kind::string))
      refuse(file, "tensor ", shown(tensor.string()), ": its shard at byte ", shard.offset(), " is not a file name");
    shards.emplace(shard.string(), 0);
    if (shards.size() > limits::shards) refuse(file, "more than ", limits::shards, " shards");
  });
  std::uint32_t number = 0;
  for (auto& [name, at] : shards) at = number++;
  return shards;
}

std::vector<std::shared_ptr<const File>> open_shards(const std::filesystem::path& folder, const SafetensorsIndex& index,
                                                     std::string_view file) {
  std::vector<std::filesystem::path> paths;
  std::vector<std::string> missing;
  for (const std::string& shard : index.shards) {
    if (auto path = find_model_file(folder, shard)) paths.push_back(*std::move(path));
    else missing.push_back(shard);
  }
  if (!missing.empty())
    refuse(file, missing.size(), " of ", index.shards.size(),
           " shards are missing from the folder: ", brief_list(missing), "; download incomplete?");
  std::vector<std::shared_ptr<const File>> files;
  files.reserve(paths.size());
  for (const auto& path : paths) files.push_back(open_resolved(path));
  return files;
}

/// Checks the tensors of one shard against the index and marks their listings as found.
void match_shard(const TensorTable& table, std::uint32_t shard, const SafetensorsIndex& index, std::vector<bool>& found,
                 std::string_view file) {
  for (const TensorEntry& tensor : table.tensors) {
    const auto at =
        std::lower_bound(index.listings.begin(), index.listings.end(), tensor.name,
                         [](const auto& listing, const std::string& name) { return listing.tensor < name; });
    if (at == index.listings.end() || at->tensor != tensor.name)
      refuse(file, "tensor ", brief(tensor.name), " is in shard ", brief(index.shards[shard]),
             ", but the index does not list it");
    if (at->shard != shard)
      refuse(file, "tensor ", brief(tensor.name), " is in shard ", brief(index.shards[shard]),
             ", but the index lists it in ", brief(index.shards[at->shard]));
    found[static_cast<std::size_t>(at - index.listings.begin())] = true;
  }
}

void check_all_found(const SafetensorsIndex& index, const std::vector<bool>& found, std::string_view file) {
  std::vector<std::string> absent;
  for (std::size_t i = 0; i < found.size(); ++i)
    if (!found[i]) absent.push_back(index.listings[i].tensor + " (" + index.shards[index.listings[i].shard] + ")");
  if (!absent.empty()) refuse(file, absent.size(), " tensors are listed, but not in their shard: ", brief_list(absent));
}

}  // namespace

SafetensorsIndex parse_safetensors_index(std::string_view text, std::string_view file) {
  if (text.size() > limits::index_bytes)
    refuse(file, "the index has ", text.size(), " bytes; at most ", limits::index_bytes, " are allowed");
  refuse_lfs_pointer(std::as_bytes(std::span(text)), file);
  if (text.empty()) refuse(file, "the index is empty (0 bytes); download incomplete?");
  const json::Document document(text, file);
  if (!document.root().is(json::Kind::object)) refuse(file, "the index is not a JSON object");

  SafetensorsIndex index;
  std::optional<json::Value> weight_map;
  document.root().members([&](json::Value key, json::Value value) {
    if (key.equals("weight_map")) weight_map = value;
    if (key.equals("metadata") && value.is(json::Kind::object)) index.total_size = total_size(value, file);
  });
  if (!weight_map || !weight_map->is(json::Kind::object)) refuse(file, "the index has no object weight_map");
  const std::size_t tensors = weight_map->size();
  if (tensors == 0) refuse(file, "weight_map is empty: it lists no tensors");
  if (tensors > limits::tensors) refuse(file, tensors, " tensors; at most ", limits::tensors, " are allowed");

  const Names shards = shard_names(*weight_map, file);
  for (const auto& [name, number] : shards) index.shards.push_back(name);
  index.listings.reserve(tensors);
  weight_map->members([&](json::Value tensor, json::Value shard) {
    std::string name = tensor.string();
    check_tensor_name(name, file);
    index.listings.push_back({std::move(name), shards.find(shard.string())->second});
  });
  std::sort(index.listings.begin(), index.listings.end(),
            [](const auto& a, const auto& b) { return a.tensor < b.tensor; });
  return index;
}

TensorTable read_sharded_safetensors(const std::filesystem::path& folder, std::string_view index_name) {
  const auto index_file = open_resolved(check_model_file(folder, index_name));
  const std::string& path = index_file->path();
  if (index_file->size() > limits::index_bytes)
    refuse(path, "the index has ", index_file->size(), " bytes; at most ", limits::index_bytes, " are allowed");
  std::vector<std::byte> text(index_file->size());
  index_file->read(0, text);
  const SafetensorsIndex index = parse_safetensors_index(as_text(text), path);

  TensorTable whole;
  whole.files = open_shards(folder, index, path);
  std::vector<bool> found(index.listings.size());
  std::uint64_t bytes = 0;
  for (std::uint32_t shard = 0; shard < whole.files.size(); ++shard) {
    TensorTable part = read_safetensors_file(whole.files[shard]);
    match_shard(part, shard, index, found, path);
    for (TensorEntry& tensor : part.tensors) {
      tensor.file = shard;
      bytes = checked_add(bytes, tensor.bytes, "size of all tensors");
    }
    std::move(part.tensors.begin(), part.tensors.end(), std::back_inserter(whole.tensors));
    whole.metadata.merge(part.metadata);
  }
  check_all_found(index, found, path);
  if (index.total_size && *index.total_size != bytes)
    refuse(path, "metadata.total_size is ", *index.total_size, " bytes, but the shards' tensors have ", bytes,
           "; an incomplete or mixed-up download? If the shards are right, remove total_size from the index");
  std::sort(whole.tensors.begin(), whole.tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return whole;
}

}  // namespace lamella::io
