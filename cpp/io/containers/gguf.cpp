#include "io/containers/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <string>

#include "io/containers/gguf_cursor.h"
#include "io/containers/gguf_metadata.h"
#include "io/containers/limits.h"
#include "io/containers/utf8.h"

namespace lamella::io {
namespace {

constexpr std::uint64_t default_alignment = 32, max_alignment = 1u << 20;
constexpr std::uint64_t least_tensor_bytes = 8 + 1 + 4 + 4 + 8;  // name, dimension count, type, offset of a scalar "x"

/// ggml's number of an element type, its name, and ours where there is one.
struct GgmlType {
  std::uint32_t number;
  std::string_view name;
  std::optional<StorageType> type;
};

constexpr std::array ggml_types{
    GgmlType{0, "F32", StorageType::f32},          GgmlType{1, "F16", StorageType::f16},
    GgmlType{2, "Q4_0", StorageType::q4_0},        GgmlType{3, "Q4_1", StorageType::q4_1},
    GgmlType{6, "Q5_0", StorageType::q5_0},        GgmlType{7, "Q5_1", StorageType::q5_1},
    GgmlType{8, "Q8_0", StorageType::q8_0},        GgmlType{9, "Q8_1", {}},
    GgmlType{10, "Q2_K", StorageType::q2_k},       GgmlType{11, "Q3_K", StorageType::q3_k},
    GgmlType{12, "Q4_K", StorageType::q4_k},       GgmlType{13, "Q5_K", StorageType::q5_k},
    GgmlType{14, "Q6_K", StorageType::q6_k},       GgmlType{15, "Q8_K", {}},
    GgmlType{16, "IQ2_XXS", StorageType::iq2_xxs}, GgmlType{17, "IQ2_XS", StorageType::iq2_xs},
    GgmlType{18, "IQ3_XXS", StorageType::iq3_xxs}, GgmlType{19, "IQ1_S", StorageType::iq1_s},
    GgmlType{20, "IQ4_NL", StorageType::iq4_nl},   GgmlType{21, "IQ3_S", StorageType::iq3_s},
    GgmlType{22, "IQ2_S", StorageType::iq2_s},     GgmlType{23, "IQ4_XS", StorageType::iq4_xs},
    GgmlType{24, "I8", StorageType::i8},           GgmlType{25, "I16", StorageType::i16},
    GgmlType{26, "I32", StorageType::i32},         GgmlType{27, "I64", StorageType::i64},
    GgmlType{28, "F64", StorageType::f64},         GgmlType{29, "IQ1_M", StorageType::iq1_m},
    GgmlType{30, "BF16", StorageType::bf16},       GgmlType{34, "TQ1_0", StorageType::tq1_0},
    GgmlType{35, "TQ2_0", StorageType::tq2_0},     GgmlType{39, "MXFP4", StorageType::mxfp4},
    GgmlType{40, "NVFP4", StorageType::nvfp4},     GgmlType{41, "Q1_0", {}},
};

/// Names of the types that have a StorageType: "F32, F16, Q4_0, ...".
std::string supported_types() {
  std::string names;
  for (const GgmlType& type : ggml_types)
    if (type.type) names.append(names.empty() ? "" : ", ").append(type.name);
  return names;
}

void check_version(GgufCursor& in) {
  if (as_text(in.bytes(4, "the magic")) != "GGUF")
    refuse(in.file(), "it does not begin with \"GGUF\"; this is not a GGUF file");
  const auto version = in.number<std::uint32_t>("the version");
  if (version == 2 || version == 3) return;
  if (version != 0 && (version & 0xffff) == 0)  // 3 reads as 0x03000000 with the bytes the other way round
    refuse_unsupported(in.file(), "a big-endian GGUF file; convert it with gguf-convert-endian (Python package gguf)");
  refuse_unsupported(in.file(), "GGUF version ", version,
                     "; supported are 2 and 3. Convert the model again with a current llama.cpp");
}

std::uint64_t alignment(const TensorTable& table, std::string_view file) {
  const auto found = table.metadata.find("general.alignment");
  if (found == table.metadata.end()) return default_alignment;
  const auto* value = std::get_if<std::uint64_t>(&found->second.value);
  if (!value || !std::has_single_bit(*value) || *value > max_alignment)
    refuse(file, "general.alignment ", value ? concat(*value) : "of another type", " is not a power of two up to ",
           max_alignment);
  return *value;
}

void refuse_split(const TensorTable& table, std::string_view file) {
  const auto found = table.metadata.find("split.count");
  if (found == table.metadata.end()) return;
  const auto* count = std::get_if<std::uint64_t>(&found->second.value);
  if (!count || *count > 1)
    refuse_unsupported(
        file, "one part of a split GGUF file; join the parts with `llama-gguf-split --merge` and load the result");
}

/// The block size of the type along the innermost dimension must divide it; the bytes follow.
std::uint64_t tensor_bytes(const TensorEntry& entry, std::string_view file) {
  const StorageTraits& layout = traits(entry.type);
  const std::uint64_t row = entry.shape.empty() ? 1 : static_cast<std::uint64_t>(entry.shape.back());
  if (row % layout.elements != 0)
    refuse(file, "tensor ", shown(entry.name), ": rows of ", row, " elements do not divide into ", layout.name,
           " blocks of ", layout.elements);
  std::uint64_t bytes = row / layout.elements * layout.bytes;  // at most 2^48 * 8
  for (std::size_t i = 0; i + 1 < entry.shape.size(); ++i)
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(entry.shape[i]), &bytes))
      refuse(file, "tensor ", shown(entry.name), ": its size in bytes overflows 64 bits");
  return bytes;
}

TensorEntry read_tensor(GgufCursor& in) {
  const std::uint64_t at = in.position();
  TensorEntry entry;
  entry.name = in.string("a tensor's name");
  check_tensor_name(entry.name, in.file());
  if (!is_utf8(entry.name))
    refuse(in.file(), "tensor name ", shown(entry.name), " at byte ", at, " is not valid UTF-8");

  const auto rank = in.number<std::uint32_t>("a tensor's dimension count");
  if (rank > limits::rank)
    refuse(in.file(), "tensor ", shown(entry.name), " has ", rank, " dimensions; at most ", limits::rank,
           " are allowed");
  entry.shape.resize(rank);
  std::int64_t product = 1;
  for (std::uint32_t i = 0; i < rank; ++i) {
    const auto dim = in.number<std::uint64_t>("a tensor's dimension");
    if (dim > limits::dimension)
      refuse(in.file(), "tensor ", shown(entry.name), ": dimension ", i, " is ", dim, "; at most 2^48 is allowed");
    entry.shape[rank - 1 - i] = static_cast<std::int64_t>(dim);
    if (dim != 0 && __builtin_mul_overflow(product, static_cast<std::int64_t>(dim), &product))
      refuse(in.file(), "tensor ", shown(entry.name), ": the product of its dimensions overflows");
  }

  const auto number = in.number<std::uint32_t>("a tensor's type");
  const auto* known =
      std::find_if(ggml_types.begin(), ggml_types.end(), [&](const GgmlType& type) { return type.number == number; });
  if (known == ggml_types.end() || !known->type)
    refuse_unsupported(in.file(), "tensor ", shown(entry.name), " has ggml type ",
                       known == ggml_types.end() ? concat(number, " (unknown)") : std::string(known->name),
                       "; supported are ", supported_types());
  entry.type = *known->type;
  entry.bytes = tensor_bytes(entry, in.file());
  entry.offset = in.number<std::uint64_t>("a tensor's offset");
  return entry;
}

/// Tensors lie one after another, each at the next aligned offset; the file ends with the last one or with its padding.
/// Turns offsets from the start of the data into offsets from the start of the file.
void place_tensors(TensorTable& table, std::uint64_t head_end, std::uint64_t file_size, std::string_view file) {
  const std::uint64_t align = alignment(table, file);
  const auto align_up = [&](std::uint64_t size) {
    return checked_add(size, align - 1, "an aligned size") & ~(align - 1);
  };
  const std::uint64_t data_begin = align_up(head_end);
  std::sort(table.tensors.begin(), table.tensors.end(), [](const auto& a, const auto& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  std::uint64_t next = 0, end = 0;
  for (TensorEntry& tensor : table.tensors) {
    if (tensor.offset % align != 0)
      refuse(file, "tensor ", shown(tensor.name), " begins at data offset ", tensor.offset,
             ", not a multiple of the alignment ", align);
    if (tensor.offset != next)
      refuse(file, "tensor ", shown(tensor.name), " begins at data offset ", tensor.offset,
             ", but the one before it leaves off at ", next, ": ", tensor.offset > next ? "a hole" : "an overlap");
    end = checked_add(tensor.offset, tensor.bytes, "a tensor's end");
    next = align_up(end);
    const std::uint64_t needed = checked_add(data_begin, end, "a tensor's end");
    if (needed > file_size)
      refuse(file, "tensor ", shown(tensor.name), " ends at byte ", needed, ", but the file has ", file_size,
             " bytes; download incomplete?");
    tensor.offset += data_begin;
  }
  // A file without tensors may end with the metadata.
  if (file_size > checked_add(data_begin, next, "the data's end"))
    refuse(file, "the tensors end at byte ", data_begin + end, ", but the file has ", file_size,
           " bytes: trailing bytes that belong to no tensor");
}

void sort_by_name(TensorTable& table, std::string_view file) {
  std::sort(table.tensors.begin(), table.tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(table.tensors.begin(), table.tensors.end(),
                                        [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != table.tensors.end()) refuse(file, "tensor ", shown(twice->name), " is described twice");
}

TensorTable read_head(GgufCursor& in, std::uint64_t file_size) {
  check_version(in);
  const std::uint64_t tensors = in.count(least_tensor_bytes, "the tensor count");
  if (tensors > limits::tensors) refuse(in.file(), tensors, " tensors; at most ", limits::tensors, " are allowed");
  TensorTable table;
  table.metadata = read_gguf_metadata(in);
  refuse_split(table, in.file());
  table.tensors.reserve(tensors);
  for (std::uint64_t i = 0; i < tensors; ++i) table.tensors.push_back(read_tensor(in));
  place_tensors(table, in.position(), file_size, in.file());
  sort_by_name(table, in.file());
  return table;
}

}  // namespace

std::variant<TensorTable, NeedMore> parse_gguf(std::span<const std::byte> head, std::uint64_t file_size,
                                               std::string_view file) {
  refuse_lfs_pointer(head, file);
  GgufCursor in(head.first(std::min<std::uint64_t>(head.size(), file_size)), file_size, file);
  try {
    return read_head(in, file_size);
  } catch (const HeadEnds& end) {
    return NeedMore{end.bytes};
  }
}

TensorTable read_gguf(const std::filesystem::path& path) {
  const auto file = std::make_shared<const File>(path);
  std::vector<std::byte> head;
  // A vocabulary of 150,000 tokens takes some 6 MB. Each round doubles at least, so all rounds together parse twice
  // the header.
  for (std::uint64_t wanted = 1u << 20;;) {
    head = {};  // frees the shorter piece before the longer one is allocated
    head.resize(std::min(wanted, file->size()));
    file->read(0, head);
    auto parsed = parse_gguf(head, file->size(), file->path());
    if (auto* table = std::get_if<TensorTable>(&parsed)) {
      table->files = {file};
      return std::move(*table);
    }
    wanted = std::max(std::get<NeedMore>(parsed).bytes, std::min<std::uint64_t>(2 * head.size(), limits::header_bytes));
  }
}

}  // namespace lamella::io
