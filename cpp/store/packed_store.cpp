#include "store/packed_store.h"

#include <string>
#include <system_error>

#include "io/path_rules.h"
#include "io/refuse.h"

namespace lamella {
namespace {

std::shared_ptr<const io::File> open_file(const std::filesystem::path& path) {
  std::error_code not_there;
  if (!std::filesystem::is_directory(path, not_there)) return std::make_shared<const io::File>(path);
  const auto found = io::find_model_file(path, io::store_file_name);
  if (!found) io::refuse(path.string(), "no ", io::store_file_name, " in this folder; `lamella pack` writes one");
  return io::open_resolved(*found);
}

}  // namespace

PackedStore open_store(const std::filesystem::path& path) {
  PackedStore store{.file = open_file(path), .header = {}};
  store.header = io::read_store_header(*store.file);
  return store;
}

}  // namespace lamella
