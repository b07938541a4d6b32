#include "io/containers/store.h"

#include <algorithm>
#include <utility>

#include "base/checksum.h"
#include "io/containers/spec_json.h"
#include "io/containers/store_layout.h"
#include "io/containers/store_metadata.h"
#include "io/containers/store_prologue.h"
#include "io/refuse.h"

namespace lamella::io {
namespace {

constexpr std::string_view digest_prefix = "sha256:";

}  // namespace

StoreHeader plan_store(ModelSpec model, DataType dtype, std::map<std::string, std::string> source,
                       std::span<const WeightFormat> formats) {
  validate(model);
  check(dtype == DataType::f32 || dtype == DataType::f16 || dtype == DataType::bf16, "a store for activations of ",
        to_string(dtype));
  StoreHeader header{.model = std::move(model), .dtype = dtype, .source = std::move(source)};
  const std::vector<PlacedWeight> declared = in_store_order(header.model);
  check(formats.size() == declared.size(), "a store of ", declared.size(), " weights with ", formats.size(),
        " formats");
  for (const auto& [weight, index] : declared) {
    validate(weight, formats[index]);
    header.weights.push_back(
        {.id = weight.id, .rows = weight.rows, .columns = weight.columns, .format = formats[index]});
  }
  // Offsets are written in decimal digits, and how many there are moves them: until it moves no more. Never down, since
  // a larger offset has no fewer digits.
  for (header.header_bytes = store_page;;) {
    lay_out(header, declared);
    header.digest = store_digest(header);
    const std::uint64_t needed = store_header_bytes(store_metadata(header, header.digest).size());
    if (needed <= header.header_bytes) break;
    header.header_bytes = needed;
  }
  // What could not be read back is found now, not when all segments are written.
  static_cast<void>(encode_store_header(header));
  return header;
}

std::string store_digest(const StoreHeader& header) {
  Sha256 hash;
  const auto line = [&](const auto&... parts) { hash.update(std::string_view(concat(parts..., '\n'))); };
  line("layout ", header.layout);
  hash.update("model ");
  write_json(header.model, [&](std::string_view piece) { hash.update(piece); });
  line();
  line("dtype ", to_string(header.dtype));
  for (const StoreSegment& segment : header.segments)
    line("segment ", segment_name(segment), ' ', segment.bytes, ' ', hex(segment.xxh64));
  for (const StoreWeight& weight : header.weights)
    line("weight ", to_string(weight.id), ' ', weight.offset, ' ', to_json(weight.format));
  return concat(digest_prefix, hex(hash.digest()));
}

std::string encode_store_header(const StoreHeader& header) {
  const std::string metadata = store_metadata(header, store_digest(header));
  const StorePrologue prologue{.version = 1,
                               .features = 0,
                               .metadata_bytes = metadata.size(),
                               .file_bytes = header.file_bytes,
                               .metadata_xxh64 = xxh64(std::as_bytes(std::span(metadata)))};
  std::string out(as_text(encode_store_prologue(prologue)));
  out += metadata;
  check(out.size() <= header.header_bytes, "a store's header of ", out.size(), " bytes, planned for ",
        header.header_bytes);
  out.resize(header.header_bytes);
  try {
    static_cast<void>(parse_store_header(std::as_bytes(std::span(out)), header.file_bytes, "the new store"));
  } catch (const Error& error) {
    check(false, "a store's header that cannot be read back: ", error.what());
  }
  return out;
}

StoreHeader parse_store_header(std::span<const std::byte> head, std::uint64_t file_size, std::string_view file) {
  const StorePrologue prologue = decode_store_prologue(head, file_size, file);
  const std::uint64_t header_bytes = store_header_bytes(prologue.metadata_bytes);
  if (head.size() < header_bytes)  // it had fewer when the prologue was looked at first
    refuse(file, "a header of ", header_bytes, " bytes, of which there are only ", head.size(), copy_or_pack_again);
  const auto metadata = head.subspan(store_prologue_bytes, prologue.metadata_bytes);
  const std::uint64_t found = xxh64(metadata);
  if (found != prologue.metadata_xxh64)
    refuse(file, "the metadata (bytes ", store_prologue_bytes, " to ", store_prologue_bytes + metadata.size(),
           ") are damaged: their XXH64 is ", hex(found), ", expected ", hex(prologue.metadata_xxh64),
           copy_or_pack_again);
  check_zeros(
      head.subspan(store_prologue_bytes + metadata.size(), header_bytes - store_prologue_bytes - metadata.size()),
      store_prologue_bytes + metadata.size(), "after the metadata", file);

  StoreHeader header = parse_store_metadata(as_text(metadata), file, store_prologue_bytes);
  header.header_bytes = header_bytes;
  header.file_bytes = file_size;
  check_layout(header, file);
  const std::string digest = store_digest(header);
  if (header.digest != digest)
    refuse(file, "the digest is ", brief(header.digest), ", but model, formats and checksums give ", brief(digest),
           pack_again);
  return header;
}

StoreHeader read_store_header(const File& file) {
  try {
    std::vector<std::byte> head(std::min<std::uint64_t>(file.size(), store_prologue_bytes));
    file.read(0, head);
    const StorePrologue prologue = decode_store_prologue(head, file.size(), file.path());
    head.resize(store_header_bytes(prologue.metadata_bytes));
    file.read(0, head);
    return parse_store_header(head, file.size(), file.path());
  } catch (const Error&) {
    file.verify_unchanged();  // what somebody is writing looks damaged
    throw;
  }
}

}  // namespace lamella::io
