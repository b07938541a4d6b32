#include "io/path_rules.h"

#include <algorithm>
#include <string>
#include <system_error>

#include "io/refuse.h"

namespace lamella::io {
namespace {

namespace fs = std::filesystem;

void check_name(const fs::path& folder, std::string_view name) {
  const bool plain = !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
                     std::none_of(name.begin(), name.end(), [](char c) {
                       return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
                     });
  if (!plain)
    refuse(folder.string(), "file name ", shown(name),
           " is not allowed: files of a model are plain names inside the model folder, without '/' and '..'");
}

/// Whether `path` lies in `folder`, both real paths, compared component by component.
bool lies_in(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

/// The `blobs` folder of the Hugging Face cache repository that `folder` (a real path) is a snapshot of, or an empty
/// path.
fs::path cache_blobs(const fs::path& folder) {
  const fs::path snapshots = folder.parent_path();
  const fs::path repository = snapshots.parent_path();
  const bool cached = snapshots.filename() == "snapshots" && repository.filename().string().starts_with("models--");
  return cached ? repository / "blobs" : fs::path();
}

bool is_missing(const std::error_code& error) {
  return error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
}

}  // namespace

std::optional<fs::path> find_model_file(const fs::path& folder, std::string_view name) {
  check_name(folder, name);
  std::error_code error;
  const fs::path real_folder = fs::canonical(folder, error);
  if (error) throw_io_error(folder.string(), "cannot resolve the model folder", error.value());
  fs::path real = fs::canonical(real_folder / name, error);
  if (error && is_missing(error)) return std::nullopt;
  if (error) throw_io_error((folder / name).string(), "cannot resolve", error.value());

  const fs::path blobs = cache_blobs(real_folder);
  if (lies_in(real, real_folder) || (!blobs.empty() && real.parent_path() == blobs)) return real;
  refuse((folder / name).string(), "a symbolic link that leads out of the model folder, to ", brief(real.string()),
         "; copy the file into the folder, or pass the folder that holds it");
}

fs::path check_model_file(const fs::path& folder, std::string_view name) {
  auto found = find_model_file(folder, name);
  if (!found)
    refuse(folder.string(), "there is no file ", shown(name), " in the model folder; is the download complete?");
  return *std::move(found);
}

std::shared_ptr<const File> open_resolved(const fs::path& resolved) {
  return std::make_shared<const File>(resolved, Links::refuse);
}

}  // namespace lamella::io
