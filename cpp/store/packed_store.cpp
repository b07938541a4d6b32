#include "store/packed_store.h"

#include <array>
#include <string>
#include <system_error>

#include "io/containers/store_prologue.h"
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

bool is_store(const std::filesystem::path& path) {
  std::error_code not_there;
  if (std::filesystem::is_directory(path, not_there))
    return std::filesystem::symlink_status(path / io::store_file_name, not_there).type() !=
           std::filesystem::file_type::not_found;
  if (path.extension() == std::filesystem::path(io::store_file_name).extension()) return true;
  try {
    const io::File file(path);
    std::array<std::byte, io::store_magic.size()> head{};
    if (file.size() < head.size()) return false;
    file.read(0, head);
    return io::as_text(head) == io::store_magic;
  } catch (const Error&) {  // whoever opens it in earnest says why it cannot be
    return false;
  }
}

}  // namespace lamella
