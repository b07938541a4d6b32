#include "io/containers/store_prologue.h"

#include <concepts>
#include <string>

#include "base/checksum.h"
#include "io/containers/limits.h"
#include "io/containers/store.h"
#include "io/refuse.h"

namespace lamella::io {
namespace {

constexpr std::uint32_t known_version = 1;
constexpr std::uint64_t known_features = 0;
constexpr std::size_t checked_bytes = 56;  // what the prologue's own checksum covers

template <std::unsigned_integral Number>
void put(std::span<std::byte> at, Number number) noexcept {
  for (std::size_t i = 0; i < sizeof number; ++i) at[i] = static_cast<std::byte>(number >> 8 * i);
}

template <std::unsigned_integral Number>
Number get(std::span<const std::byte> at) noexcept {
  Number number = 0;
  for (std::size_t i = sizeof number; i-- > 0;) number = number << 8 | std::to_integer<Number>(at[i]);
  return number;
}

/// "3, 17": the numbers of the bits that are set.
std::string bit_numbers(std::uint64_t bits) {
  std::string out;
  for (int bit = 0; bit < 64; ++bit)
    if ((bits >> bit & 1) != 0) out += concat(out.empty() ? "" : ", ", bit);
  return out;
}

/// Whether this file may be read at all.
void check_identity(std::span<const std::byte> head, std::uint64_t file_size, std::string_view file) {
  refuse_lfs_pointer(head, file);
  if (file_size < store_prologue_bytes)
    refuse(file, "a packed store begins with ", store_prologue_bytes, " bytes, but the file has only ", file_size,
           copy_or_pack_again);
  check(head.size() >= store_prologue_bytes, file, ": the prologue from ", head.size(), " bytes");
  if (as_text(head.first(store_magic.size())) != store_magic)
    refuse(file, "not a packed store: it begins with ", shown(as_text(head.first(store_magic.size()))), ", not with ",
           shown(store_magic), "; give the folder that `lamella pack` wrote, or pack the model");
  const std::uint64_t stored = get<std::uint64_t>(head.subspan(checked_bytes));
  const std::uint64_t found = xxh64(head.first(checked_bytes));
  if (stored != found)
    refuse(file, "the first ", store_prologue_bytes, " bytes are damaged: their XXH64 is ", hex(found), ", expected ",
           hex(stored), copy_or_pack_again);
}

}  // namespace

std::array<std::byte, store_prologue_bytes> encode_store_prologue(const StorePrologue& prologue) noexcept {
  std::array<std::byte, store_prologue_bytes> out{};
  const std::span<std::byte> at(out);
  for (std::size_t i = 0; i < store_magic.size(); ++i) out[i] = static_cast<std::byte>(store_magic[i]);
  put(at.subspan(8), prologue.version);
  put(at.subspan(16), prologue.features);
  put(at.subspan(24), prologue.metadata_bytes);
  put(at.subspan(32), prologue.file_bytes);
  put(at.subspan(40), prologue.metadata_xxh64);
  put(at.subspan(checked_bytes), xxh64(at.first(checked_bytes)));
  return out;
}

StorePrologue decode_store_prologue(std::span<const std::byte> head, std::uint64_t file_size, std::string_view file) {
  check_identity(head, file_size, file);
  const StorePrologue prologue{.version = get<std::uint32_t>(head.subspan(8)),
                               .features = get<std::uint64_t>(head.subspan(16)),
                               .metadata_bytes = get<std::uint64_t>(head.subspan(24)),
                               .file_bytes = get<std::uint64_t>(head.subspan(32)),
                               .metadata_xxh64 = get<std::uint64_t>(head.subspan(40))};
  if (prologue.version > known_version)
    refuse_unsupported(file, "the store's format has version ", prologue.version, "; this version of Lamella reads ",
                       known_version, ": pack the model again with this version, or use a newer one");
  if (prologue.version != known_version)
    refuse(file, "the store's format has version ", prologue.version, ", which never was; expected ", known_version,
           pack_again);
  if ((prologue.features & ~known_features) != 0)
    refuse_unsupported(file, "the store needs features unknown to this version of Lamella: ",
                       bit_numbers(prologue.features & ~known_features),
                       ": pack the model again with this version, or use a newer one");
  for (const auto& [offset, reserved] : {std::pair<int, std::uint64_t>{12, get<std::uint32_t>(head.subspan(12))},
                                         std::pair<int, std::uint64_t>{48, get<std::uint64_t>(head.subspan(48))}})
    if (reserved != 0) refuse(file, "the number at byte ", offset, " is ", reserved, ", expected 0", pack_again);

  if (prologue.file_bytes != file_size)
    refuse(file, "the store has ", prologue.file_bytes, " bytes by its own account, but the file has ", file_size,
           file_size < prologue.file_bytes ? ": copy or download incomplete?" : ": trailing bytes", copy_or_pack_again);
  if (prologue.metadata_bytes == 0 || prologue.metadata_bytes > limits::header_bytes)
    refuse(file, "the metadata have ", prologue.metadata_bytes, " bytes; 1 to ", limits::header_bytes, " are allowed",
           pack_again);
  if (store_header_bytes(prologue.metadata_bytes) > file_size)
    refuse(file, "the metadata need ", store_header_bytes(prologue.metadata_bytes),
           " bytes with all before and after them, but the file has only ", file_size, pack_again);
  return prologue;
}

}  // namespace lamella::io
