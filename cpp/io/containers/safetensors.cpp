#include "io/containers/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "io/containers/json.h"
#include "io/containers/limits.h"
#include "io/containers/safetensors_index.h"
#include "io/path_rules.h"
#include "io/refuse.h"

namespace lamella::io {
namespace {

constexpr std::uint64_t length_bytes = 8;
constexpr std::size_t max_metadata = 4096;  // a real file has one or a few; 4,096 map nodes stay below the 1 MiB of P3

/// Length of the header in bytes, checked against the limits and the file. `head` holds the file's first bytes.
std::uint64_t header_length(std::span<const std::byte> head, std::uint64_t file_size, std::string_view file) {
  refuse_lfs_pointer(head, file);
  if (file_size < length_bytes)
    refuse(file, "a safetensors file begins with a length of 8 bytes, but the file has only ", file_size,
           " bytes; download incomplete?");
  if (head.size() < length_bytes) refuse(file, "the header's length needs 8 bytes, only ", head.size(), " are at hand");
  std::uint64_t length;
  std::memcpy(&length, head.data(), sizeof length);
  if (length == 0) refuse(file, "the header's length is 0; this is not a safetensors file");
  if (length > limits::header_bytes)
    refuse(file, "the header's length is ", length, " bytes; at most ", limits::header_bytes,
           " are allowed (not a safetensors file?)");
  if (length > file_size - length_bytes)
    refuse(file, "the header needs ", length_bytes + length, " bytes, but the file has only ", file_size,
           " bytes; download incomplete?");
  return length;
}

std::optional<StorageType> storage_type(json::Value name) {
  for (auto type = StorageType::f64; type <= StorageType::boolean;
       type = static_cast<StorageType>(static_cast<int>(type) + 1))
    if (name.equals(traits(type).name)) return type;
  return std::nullopt;
}

/// Turns the header's JSON into entries. Holds what every error message needs: the file and the tensor at hand.
class HeaderReader {
 public:
  explicit HeaderReader(std::string_view file) : file_(file) {}

  TensorTable read(json::Value root) {
    TensorTable table;
    std::size_t tensors = 0;
    root.members([&](json::Value key, json::Value) { tensors += !key.equals("__metadata__"); });
    if (tensors > limits::tensors) refuse(file_, tensors, " tensors; at most ", limits::tensors, " are allowed [S7]");
    table.tensors.reserve(tensors);
    root.members([&](json::Value key, json::Value value) {
      if (key.equals("__metadata__")) return metadata(value, table);
      name_ = key.string();
      check_tensor_name(name_, file_, " [S2]");
      table.tensors.push_back(tensor(value));
    });
    return table;
  }

 private:
  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    refuse(file_, "tensor ", shown(name_), ": ", parts...);
  }

  void metadata(json::Value value, TensorTable& table) const {
    if (!value.is(json::Kind::object)) refuse(file_, "__metadata__ at byte ", value.offset(), " is not an object [S6]");
    if (value.size() > max_metadata)
      refuse(file_, "__metadata__ has ", value.size(), " entries; at most ", max_metadata, " are allowed [S6]");
    value.members([&](json::Value key, json::Value text) {
      if (!text.is(json::Kind::string))
        refuse(file_, "__metadata__ ", shown(key.string()), " at byte ", text.offset(), " is not a string [S6]");
      table.metadata.emplace(key.string(), MetadataValue{text.string()});
    });
  }

  TensorEntry tensor(json::Value value) const {
    if (!value.is(json::Kind::object)) fail("its description at byte ", value.offset(), " is not an object [S3]");
    std::optional<json::Value> dtype, shape, offsets;
    value.members([&](json::Value key, json::Value field) {
      if (key.equals("dtype")) dtype = field;
      else if (key.equals("shape")) shape = field;
      else if (key.equals("data_offsets")) offsets = field;
      else
        fail("unknown key ", brief(key.string()), " at byte ", key.offset(),
             "; expected dtype, shape, data_offsets [S3]");
    });
    if (!dtype || !dtype->is(json::Kind::string)) fail("dtype is not a string [S3]");
    if (!shape || !shape->is(json::Kind::array)) fail("shape is not an array [S3]");
    if (!offsets || !offsets->is(json::Kind::array) || offsets->size() != 2)
      fail("data_offsets is not an array of two numbers [S3]");

    TensorEntry entry;
    entry.name = name_;
    entry.shape = dimensions(*shape);
    place(*offsets, entry);
    const auto type = storage_type(*dtype);
    if (!type)
      refuse_unsupported(file_, "tensor ", shown(name_), " has dtype ", brief(dtype->string()),
                         "; supported are F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64..I8, U64..U8 and BOOL [S8]");
    entry.type = *type;
    check_bytes(entry);
    return entry;
  }

  std::vector<std::int64_t> dimensions(json::Value shape) const {
    const std::size_t rank = shape.size();
    if (rank > limits::rank) fail("it has ", rank, " dimensions; at most ", limits::rank, " are allowed [S4]");
    std::vector<std::int64_t> dims;
    dims.reserve(rank);
    std::int64_t product = 1;
    shape.each([&](json::Value element) {
      const auto dim = element.digits();
      if (!dim) fail("dimension ", dims.size(), " at byte ", element.offset(), " is not a plain unsigned integer");
      if (*dim > limits::dimension) fail("dimension ", dims.size(), " is ", *dim, "; at most 2^48 is allowed [S5]");
      dims.push_back(static_cast<std::int64_t>(*dim));
      if (*dim != 0 && __builtin_mul_overflow(product, dims.back(), &product))
        fail("the product of its dimensions overflows [S5]");
    });
    return dims;
  }

  /// Sets offset (still counted from the start of the data) and bytes.
  void place(json::Value offsets, TensorEntry& entry) const {
    std::array<std::uint64_t, 2> at{};
    std::size_t i = 0;
    offsets.each([&](json::Value element) {
      const auto offset = element.digits();
      if (!offset) fail("data_offsets[", i, "] at byte ", element.offset(), " is not a plain unsigned integer");
      at[i++] = *offset;
    });
    if (at[0] > at[1]) fail("data_offsets begin at ", at[0], ", after their end at ", at[1]);
    entry.offset = at[0];
    entry.bytes = at[1] - at[0];
  }

  void check_bytes(const TensorEntry& entry) const {
    std::uint64_t needed = traits(entry.type).bytes;
    for (const std::int64_t dim : entry.shape)
      if (__builtin_mul_overflow(needed, static_cast<std::uint64_t>(dim), &needed))
        fail("its size in bytes overflows 64 bits [S5]");
    if (needed != entry.bytes)
      fail("its shape and dtype ", traits(entry.type).name, " need ", needed, " bytes, its data_offsets (",
           entry.offset, ", ", entry.offset + entry.bytes, ") give ", entry.bytes);
  }

  std::string_view file_;
  std::string name_;
};

/// Tensors must follow one another without hole or overlap from the first data byte to the last: no bytes are
/// unaccounted for.
void check_coverage(const TensorTable& table, std::uint64_t data_bytes, std::uint64_t data_begin,
                    std::string_view file) {
  std::vector<std::uint32_t> order(table.tensors.size());
  for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](auto a, auto b) {
    const TensorEntry &x = table.tensors[a], &y = table.tensors[b];
    return x.offset != y.offset ? x.offset < y.offset : x.bytes < y.bytes;
  });
  std::uint64_t covered = 0;
  const TensorEntry* before = nullptr;
  for (const std::uint32_t i : order) {
    const TensorEntry& tensor = table.tensors[i];
    if (tensor.offset != covered)
      refuse(file, "tensor ", brief(tensor.name), " begins at data offset ", tensor.offset, ", but ",
             before ? "tensor " + brief(before->name) + ", the one before it," : std::string("the data"),
             before ? " ends at " : " begins at ", covered, ": ", tensor.offset > covered ? "a hole" : "an overlap");
    covered += tensor.bytes;  // no overflow: it is the tensor's checked end
    if (covered > data_bytes)
      refuse(file, "tensor ", shown(tensor.name), " ends at data offset ", covered, ", so the file needs at least ",
             checked_add(data_begin, covered, "file size"), " bytes, but has ", data_begin + data_bytes,
             "; download incomplete?");
    before = &tensor;
  }
  if (covered < data_bytes)
    refuse(file, "the tensors end at byte ", data_begin + covered, ", but the file has ", data_begin + data_bytes,
           " bytes: trailing bytes that belong to no tensor");
}

}  // namespace

TensorTable parse_safetensors_header(std::span<const std::byte> head, std::uint64_t file_size, std::string_view file) {
  const std::uint64_t length = header_length(head, file_size, file);
  if (head.size() - length_bytes < length)
    refuse(file, "the header needs ", length_bytes + length, " bytes, only ", head.size(), " are at hand");
  const std::string_view text = as_text(head.subspan(length_bytes, length));
  if (text.front() != '{')
    refuse(file, "the header begins with ", shown(text.substr(0, 1)), " at byte 8, not with '{' [S1]");

  const json::Document document(text, file, length_bytes);
  const std::uint64_t data_begin = length_bytes + length;
  TensorTable table = HeaderReader(file).read(document.root());
  check_coverage(table, file_size - data_begin, data_begin, file);
  for (TensorEntry& tensor : table.tensors) tensor.offset += data_begin;
  std::sort(table.tensors.begin(), table.tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return table;
}

TensorTable read_safetensors_file(const std::shared_ptr<const File>& file) {
  std::vector<std::byte> head(std::min<std::uint64_t>(file->size(), 64));
  file->read(0, head);
  head.resize(length_bytes + header_length(head, file->size(), file->path()));
  file->read(0, head);
  TensorTable table = parse_safetensors_header(head, file->size(), file->path());
  table.files = {file};
  return table;
}

TensorTable read_safetensors(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    if (const auto single = find_model_file(path, "model.safetensors"))
      return read_safetensors_file(open_resolved(*single));
    return read_sharded_safetensors(path, "model.safetensors.index.json");
  }
  if (path.string().ends_with(".index.json")) {
    const auto folder = path.parent_path();
    return read_sharded_safetensors(folder.empty() ? "." : folder, path.filename().string());
  }
  return read_safetensors_file(std::make_shared<const File>(path));
}

}  // namespace lamella::io
