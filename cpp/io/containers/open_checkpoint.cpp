#include "io/containers/open_checkpoint.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <system_error>
#include <vector>

#include "io/containers/gguf.h"
#include "io/containers/safetensors.h"
#include "io/path_rules.h"
#include "io/refuse.h"

namespace lamella::io {
namespace {

namespace fs = std::filesystem;

bool has_pickle_ending(const fs::path& path) {
  constexpr std::array endings{".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"};
  return std::find(endings.begin(), endings.end(), path.extension().string()) != endings.end();
}

/// The path as it may stand in quotes inside quotes of a shell command, or a placeholder when it has characters of its
/// own mind.
std::string pasteable(const fs::path& path) {
  const std::string text = path.string();
  const bool plain = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '/' || c == '.' || c == '_' || c == '-' || c == '+' || c == '@';
  });
  return plain ? text : "MODEL_FOLDER";
}

[[noreturn]] void refuse_pickle(const fs::path& folder, const std::string& pickled) {
  const std::string where = pasteable(folder);
  refuse_unsupported(
      folder.string(), "the weights are pickled (", brief(pickled),
      "), and unpickling can run any code. If you trust them, convert them once: python -c \"import transformers as t; "
      "c = t.AutoConfig.from_pretrained('",
      where, "'); getattr(t, c.architectures[0]).from_pretrained('", where, "').save_pretrained('", where,
      "', safe_serialization=True)\"");
}

/// A folder without safetensors: says what is there instead. Only names are looked at.
[[noreturn]] void refuse_folder(const fs::path& folder) {
  std::vector<std::string> pickled, ggufs, safetensors;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    const fs::path& path = entry->path();
    if (has_pickle_ending(path)) pickled.push_back(path.filename().string());
    if (path.extension() == ".gguf") ggufs.push_back(path.filename().string());
    if (path.extension() == ".safetensors") safetensors.push_back(path.filename().string());
  }
  if (error) throw_io_error(folder.string(), "cannot list the model folder", error.value());
  for (auto* names : {&pickled, &ggufs, &safetensors}) std::sort(names->begin(), names->end());
  constexpr std::string_view missing =
      "there is neither model.safetensors nor model.safetensors.index.json in the model folder";
  if (!ggufs.empty()) refuse(folder.string(), missing, "; to load a GGUF file, give its path: ", brief_list(ggufs));
  if (!safetensors.empty())
    refuse(folder.string(), missing, ", but other safetensors files: ", brief_list(safetensors),
           "; index file lost, or download incomplete?");
  if (!pickled.empty()) refuse_pickle(folder, pickled.front());
  refuse(folder.string(), missing, "; is it the right folder, and the download complete?");
}

TensorTable open_folder(const fs::path& folder) {
  if (find_model_file(folder, "model.safetensors") || find_model_file(folder, "model.safetensors.index.json"))
    return read_safetensors(folder);
  refuse_folder(folder);
}

TensorTable open_file(const fs::path& path) {
  if (path.string().ends_with(".index.json")) return read_safetensors(path);
  const auto file = std::make_shared<const File>(path);
  if (file->size() == 0) refuse(file->path(), "the file is empty (0 bytes); download incomplete?");
  std::vector<std::byte> head(std::min<std::uint64_t>(file->size(), 64));
  file->read(0, head);
  const std::string_view text = as_text(head);
  refuse_lfs_pointer(head, file->path());
  if (text.starts_with("GGUF") || path.extension() == ".gguf") return read_gguf(path);
  const bool zip = text.starts_with("PK\x03\x04"),
             pickle = text.starts_with("\x80\x02") || text.starts_with("\x80\x03") || text.starts_with("\x80\x04");
  if (path.extension() == ".safetensors" || (text.size() > 8 && text[8] == '{')) return read_safetensors_file(file);
  if (has_pickle_ending(path) || zip || pickle) {
    const fs::path folder = path.parent_path();
    refuse_pickle(folder.empty() ? fs::path(".") : folder, path.filename().string());
  }
  refuse(file->path(), "neither a safetensors nor a GGUF file; it begins with ", shown(text.substr(0, 8)));
}

}  // namespace

TensorTable open_checkpoint(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error) throw_io_error(path.string(), "cannot open the model", error.value());
  if (!fs::exists(status)) throw_io_error(path.string(), "cannot open the model", ENOENT);
  return fs::is_directory(status) ? open_folder(path) : open_file(path);
}

}  // namespace lamella::io
