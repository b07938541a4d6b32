// Input: one byte, four bytes of declared data size, then, where the byte is even, the head of a packed store; where it is
// odd, its metadata alone, which get a prologue and a digest that fit: no change by chance would ever make those.
#include "fuzz.h"

#include <cstring>
#include <string>

#include "base/checksum.h"
#include "io/containers/store.h"
#include "io/containers/store_layout.h"
#include "io/containers/store_metadata.h"
#include "io/containers/store_prologue.h"
#include "io/refuse.h"

namespace {

using namespace lamella;

/// A head around metadata as the writer makes it, but for a digest of another length.
std::string sealed(std::string metadata, std::uint64_t data_bytes) {
  const std::uint64_t header_bytes = io::store_header_bytes(metadata.size());
  const io::StoreHeader header = io::parse_store_metadata(metadata, "fuzzed", io::store_prologue_bytes);
  const std::string digest = io::store_digest(header);
  const std::size_t at = metadata.find(header.digest);
  if (header.digest.size() == digest.size() && at != std::string::npos) metadata.replace(at, digest.size(), digest);
  const auto prologue = io::encode_store_prologue({.version = 1,
                                                   .metadata_bytes = metadata.size(),
                                                   .file_bytes = header_bytes + data_bytes,
                                                   .metadata_xxh64 = xxh64(std::as_bytes(std::span(metadata)))});
  std::string head(io::as_text(prologue));
  head += metadata;
  head.resize(header_bytes);
  return head;
}

/// As read_store_header does it, with zeros for what the input does not hold of a header.
void parse_as_file(std::string head, std::uint64_t data_bytes) {
  constexpr std::uint64_t most = 1 << 20;
  const std::uint64_t file_size = head.size() + data_bytes;
  head.resize(std::max(head.size(), std::min<std::uint64_t>(file_size, io::store_prologue_bytes)));
  const auto prologue = io::decode_store_prologue(std::as_bytes(std::span(head)), file_size, "fuzzed");
  const std::uint64_t header_bytes = io::store_header_bytes(prologue.metadata_bytes);
  fuzz::require(header_bytes <= file_size, "a header inside the file");
  if (header_bytes > most) return;
  head.resize(header_bytes);
  const io::StoreHeader header = io::parse_store_header(std::as_bytes(std::span(head)), file_size, "fuzzed");
  for (const io::StoreSegment& segment : header.segments)
    fuzz::require(segment.offset <= file_size && segment.bytes <= file_size - segment.offset, "segments in the file");
  for (const io::StoreWeight& weight : header.weights) {
    const std::uint64_t bytes_of_segment = header.segments.at(weight.segment).bytes;
    fuzz::require(weight.offset <= bytes_of_segment && weight.bytes <= bytes_of_segment - weight.offset,
                  "weights in their segment");
  }

  // What was accepted can be written, and reads as the same model; what we write comes back as the same bytes.
  try {
    io::StoreHeader again = io::plan_store(header.model, header.dtype, header.source, io::declared_formats(header));
    fuzz::require(again.segments.size() == header.segments.size(), "the same segments");
    for (std::size_t i = 0; i < again.segments.size(); ++i) again.segments[i].xxh64 = header.segments[i].xxh64;
    const std::string written = io::encode_store_header(again);
    const io::StoreHeader back = io::parse_store_header(std::as_bytes(std::span(written)), again.file_bytes, "written");
    fuzz::require(back.digest == header.digest && back.source == header.source, "the same model");
    fuzz::require(io::encode_store_header(back) == written, "the same bytes");
  } catch (const Error& error) {
    fuzz::require(false, error.what());
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 5) return 0;
  std::uint32_t data_bytes;
  std::memcpy(&data_bytes, data + 1, sizeof data_bytes);
  std::string text(reinterpret_cast<const char*>(data + 5), size - 5);
  fuzz::expect_only_refusals(
      [&] { parse_as_file(data[0] % 2 == 0 ? std::move(text) : sealed(std::move(text), data_bytes), data_bytes); });
  return 0;
}
