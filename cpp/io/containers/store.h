// The packed store: a model's weights as the kernels read them, in one file. Its first pages say what the rest holds.
//
//   prologue (64 bytes, store_prologue.h) | metadata (JSON) | zeros to a page | segment | zeros to a page | segment | ...
//
// A segment is what one bulk read brings: the weights of one Segment of one layer, in the order of declare_weights, each
// at the next multiple of 64 bytes. Segments without weights are left out. So where everything lies follows from the
// model and the weights' formats alone; the metadata say it all the same, and a reader refuses what differs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "lamella/types.h"
#include "lamella/weight_format.h"
#include "model/model_spec.h"
#include "model/weights.h"

namespace lamella::io {

inline constexpr std::string_view store_file_name = "model.lamella";
inline constexpr std::string_view store_layout = "cpu-panels-1";  // memory/panels.h, and fp32 vectors
inline constexpr std::uint64_t store_page = 4096;  // segments begin and the file ends at multiples
inline constexpr std::uint64_t store_line = 64;  // weights begin at multiples, within their segment

/// One bulk read: bytes [offset, offset + bytes) of the file.
struct StoreSegment {
  std::int32_t layer = -1;  // -1: outside the layers
  Segment segment = Segment::embedding;
  std::int32_t expert = -1;  // whose segment it is; -1: no expert's
  std::uint64_t offset = 0;  // from the start of the file
  std::uint64_t bytes = 0;  // without the padding that follows
  std::uint64_t xxh64 = 0;  // of these bytes
};

/// One weight: bytes [offset, offset + bytes) of its segment.
struct StoreWeight {
  WeightId id;
  std::uint32_t segment = 0;  // of StoreHeader::segments
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::int64_t rows = 0, columns = 0;
  WeightFormat format;
};

/// What a store says about itself.
struct StoreHeader {
  std::string layout{store_layout};
  ModelSpec model;
  /// What "auto" stood for when the model was packed: f32, f16 or bf16. An engine of another dtype may read the store too.
  DataType dtype = DataType::f32;
  /// What the store was packed from, in words: at most 64 texts, names of 1 to 256 bytes, values of at most 4,096, UTF-8.
  std::map<std::string, std::string> source;
  /// "sha256:" and 64 hexadecimal digits over layout, model, dtype, and every segment's and weight's place, checksum and format:
  /// equal for equal models, wherever they were packed from.
  std::string digest;
  std::vector<StoreSegment> segments;  // in the order of the file
  std::vector<StoreWeight> weights;  // in the order of the file
  std::uint64_t header_bytes = 0;  // where the first segment begins
  std::uint64_t file_bytes = 0;
};

/// The header of a store of `model`, all places filled in, checksums still 0. `dtype` is the resolved one of the engine
/// that it is packed for; `formats` are in the order of declare_weights(model). The places depend on the length of the
/// texts in `source`, so these are final. Errors: whatever validate() throws for the model or a format;
/// invalid_argument for `source`; invalid_checkpoint where sizes overflow.
[[nodiscard]] StoreHeader plan_store(ModelSpec model, DataType dtype, std::map<std::string, std::string> source,
                                     std::span<const WeightFormat> formats);

/// The first header.header_bytes bytes of the file, the same for the same header everywhere; the digest is computed,
/// header.digest is not read. What cannot be read back is a broken invariant.
[[nodiscard]] std::string encode_store_header(const StoreHeader& header);

/// The digest of the header's other fields.
[[nodiscard]] std::string store_digest(const StoreHeader& header);

/// Parses a header from memory. `head` begins with the file's first byte and holds at least the header with its padding;
/// `file_size` is the size of the whole file. Everything is checked but the segments' own bytes (store_verify.h). Errors
/// name `file`, what, expected, found, and what to do: invalid_checkpoint; unsupported_model for a newer version, an
/// unknown feature or layout, and for models that validate() does not know.
[[nodiscard]] StoreHeader parse_store_header(std::span<const std::byte> head, std::uint64_t file_size,
                                             std::string_view file);

/// The header of an open file; reads nothing else.
[[nodiscard]] StoreHeader read_store_header(const File& file);

/// Where the segments begin after metadata of so many bytes.
[[nodiscard]] constexpr std::uint64_t store_header_bytes(std::uint64_t metadata_bytes) noexcept {
  return (64 + metadata_bytes + store_page - 1) / store_page * store_page;
}

/// "layers.3.mlp_up", "layers.3.experts.7", "embedding".
[[nodiscard]] std::string segment_name(const StoreSegment& segment);

// How refusals of stores end.
inline constexpr std::string_view pack_again = "; pack the model again with this version";
inline constexpr std::string_view copy_or_pack_again = "; copy the file again, or pack the model again";

}  // namespace lamella::io
