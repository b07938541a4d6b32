#include "io/containers/gguf_cursor.h"

#include <algorithm>

#include "io/containers/limits.h"

namespace lamella::io {

void GgufCursor::require(std::uint64_t count, std::string_view what) const {
  if (count > file_size_ - at_)
    refuse(file_, what, " at byte ", at_, " needs ", count, " bytes, but the file ends at byte ", file_size_,
           "; download incomplete?");
  if (count > limits::header_bytes - std::min(at_, limits::header_bytes))
    refuse(file_, what, " at byte ", at_, " needs ", count, " bytes; metadata and tensor list may have ",
           limits::header_bytes, " bytes together");
  if (count > head_.size() - at_) throw HeadEnds(at_ + count);
}

std::span<const std::byte> GgufCursor::bytes(std::uint64_t count, std::string_view what) {
  require(count, what);
  const auto taken = head_.subspan(at_, count);
  at_ += count;
  return taken;
}

std::string_view GgufCursor::string(std::string_view what) { return as_text(bytes(number<std::uint64_t>(what), what)); }

std::uint64_t GgufCursor::count(std::uint64_t least, std::string_view what) {
  const std::uint64_t at = at_, items = number<std::uint64_t>(what);
  std::uint64_t needed;
  if (__builtin_mul_overflow(items, least, &needed) || needed > file_size_)
    refuse(file_, what, " at byte ", at, " is ", items, ", more than a file of ", file_size_,
           " bytes can hold; download incomplete?");
  require(needed, what);
  return items;
}

}  // namespace lamella::io
