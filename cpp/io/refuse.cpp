#include "io/refuse.h"

#include <system_error>

#include "io/containers/limits.h"

namespace lamella::io {

void throw_io_error(std::string_view file, std::string_view doing, int code, std::string_view remedy) {
  throw Error(ErrorCode::io_error,
              concat(file, ": ", doing, ": ", std::generic_category().message(code), " (errno ", code, ")", remedy));
}

std::string shown(std::string_view text) { return lamella::quoted(text); }

std::string brief(std::string_view name) {
  constexpr std::size_t limit = 96;
  return name.size() <= limit ? shown(name) : shown(name.substr(0, limit)) + "...";
}

std::string brief_list(const std::vector<std::string>& names) {
  constexpr std::size_t most = 10, bytes = 256;
  std::string out;
  std::size_t listed = 0;
  for (; listed < names.size() && listed < most; ++listed) {
    const std::string name = brief(names[listed]);
    if (listed > 0 && out.size() + name.size() > bytes) break;
    if (listed > 0) out += ", ";
    out += name;
  }
  if (listed < names.size()) out += concat(" and ", names.size() - listed, " more");
  return out;
}

void check_tensor_name(std::string_view name, std::string_view file, std::string_view tag) {
  if (name.empty() || name.size() > limits::name_bytes)
    refuse(file, "a tensor's name has ", name.size(), " bytes (", brief(name), "); 1 to ", limits::name_bytes,
           " are allowed", tag);
  if (name.find('\0') != std::string_view::npos) refuse(file, "tensor name ", shown(name), " holds a NUL byte", tag);
}

void refuse_lfs_pointer(std::span<const std::byte> head, std::string_view file) {
  if (as_text(head).starts_with("version https://git-lfs"))
    refuse(file, "this is a git-lfs pointer, not the file itself; run `git lfs pull` in the model folder");
}

}  // namespace lamella::io
