// Checkpoints for Python: the tensor table, the parsers for tests, and the path rules for whoever opens config and
// tokenizer.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <memory>

#include "base/check.h"
#include "bindings.h"
#include "gil.h"
#include "io/containers/gguf.h"
#include "io/containers/open_checkpoint.h"
#include "io/containers/safetensors.h"
#include "io/containers/safetensors_index.h"
#include "io/containers/utf8.h"
#include "io/expand.h"
#include "io/path_rules.h"
#include "io/refuse.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

using io::MetadataArray;
using io::MetadataNumbers;
using io::MetadataValue;
using io::TensorEntry;
using io::TensorTable;

nb::object to_python(const MetadataValue& value);

struct ToPython {
  nb::object operator()(bool value) const { return nb::bool_(value); }
  nb::object operator()(std::int64_t value) const { return nb::int_(value); }
  nb::object operator()(std::uint64_t value) const { return nb::int_(value); }
  nb::object operator()(double value) const { return nb::float_(value); }
  // GGUF does not promise UTF-8 in values: str where it is, bytes where it is not.
  nb::object operator()(const std::string& text) const {
    if (io::is_utf8(text)) return nb::str(text.data(), text.size());
    return nb::bytes(text.data(), text.size());
  }
  nb::object operator()(const MetadataArray& array) const {
    nb::list list;
    for (const MetadataValue& element : array) list.append(to_python(element));
    return list;
  }
  nb::object operator()(const MetadataNumbers& numbers) const {
    nb::list list;
    for (std::size_t i = 0; i < numbers.size(); ++i) list.append(to_python(io::number_at(numbers, i)));
    return list;
  }
};

nb::object to_python(const MetadataValue& value) { return std::visit(ToPython{}, value.value); }

const TensorEntry& entry_of(const TensorTable& table, std::string_view name) {
  const TensorEntry* entry = table.find(name);
  if (entry == nullptr)
    throw Error(ErrorCode::invalid_argument, concat("the checkpoint has no tensor ", io::shown(name)));
  return *entry;
}

/// A path as Python's os and pathlib spell it: bytes that are not text become surrogates, and bytes again when opened.
nb::object path_text(const std::string& path) {
  auto text = nb::steal(PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
  if (!text.is_valid()) throw nb::python_error();
  return text;
}

nb::tuple entry_tuple(const TensorTable& table, std::string_view name) {
  const TensorEntry& entry = entry_of(table, name);
  nb::list shape;
  for (const std::int64_t dim : entry.shape) shape.append(dim);
  const std::string file = table.files.empty() ? "" : table.files.at(entry.file)->path();
  return nb::make_tuple(nb::str(io::traits(entry.type).name.data(), io::traits(entry.type).name.size()),
                        nb::tuple(shape), path_text(file), entry.offset, entry.bytes);
}

/// Reads and expands in pieces, so that only the result and one piece are in memory.
void read_expanded(const TensorTable& table, const TensorEntry& entry, std::span<float> out) {
  const io::File& file = *table.files.at(entry.file);
  file.verify_unchanged();
  const io::StorageTraits& layout = io::traits(entry.type);
  const std::uint64_t piece = (std::uint64_t{1} << 20) / layout.bytes * layout.bytes;
  std::vector<std::byte> stored(std::min(piece, entry.bytes));
  for (std::uint64_t done = 0; done < entry.bytes;) {
    const auto in = std::span(stored).first(std::min(piece, entry.bytes - done));
    file.read(entry.offset + done, in);
    io::expand_row_range_to_f32(
        entry.type, in, out.subspan(done / layout.bytes * layout.elements, in.size() / layout.bytes * layout.elements));
    done += in.size();
  }
}

nb::ndarray<nb::numpy, float> read_f32(const TensorTable& table, std::string_view name) {
  const TensorEntry& entry = entry_of(table, name);
  if (!io::expands_to_f32(entry.type))
    throw Error(ErrorCode::unsupported_model,
                concat("tensor ", io::shown(name), " of type ", io::traits(entry.type).name, " is not floating-point"));
  if (table.files.empty())
    throw Error(ErrorCode::invalid_argument, "this table was parsed from memory; it has no file to read from");
  const std::uint64_t elements = entry.bytes / io::traits(entry.type).bytes * io::traits(entry.type).elements;
  auto values = std::make_unique_for_overwrite<float[]>(elements);
  {
    const GilReleased others_may_run;
    read_expanded(table, entry, {values.get(), elements});
  }
  const std::vector<std::size_t> shape(entry.shape.begin(), entry.shape.end());
  float* data = values.get();
  const nb::capsule owner(values.release(), [](void* array) noexcept { delete[] static_cast<float*>(array); });
  return {data, shape.size(), shape.data(), owner};
}

std::span<const std::byte> bytes_of(const nb::bytes& bytes) {
  return {static_cast<const std::byte*>(bytes.data()), bytes.size()};
}

TensorTable parse_gguf_bytes(const nb::bytes& head, std::uint64_t file_size, std::string_view file) {
  auto parsed = io::parse_gguf(bytes_of(head), file_size, file);
  if (auto* table = std::get_if<TensorTable>(&parsed)) return std::move(*table);
  throw Error(ErrorCode::invalid_argument,
              concat("the header needs at least ", std::get<io::NeedMore>(parsed).bytes, " bytes"));
}

TensorTable open_released(const std::filesystem::path& path) {
  const GilReleased others_may_run;
  return io::open_checkpoint(path);
}

}  // namespace

/// Adds TensorTable, open_checkpoint, check_model_file and the in-memory parsers to the module.
void bind_containers(nb::module_& m) {
  nb::class_<TensorTable>(m, "TensorTable",
                          "The tensors of an open checkpoint: names, types, shapes and where their bytes lie.")
      .def_static("open", open_released, "path"_a, nb::sig("def open(path: str | os.PathLike[str]) -> TensorTable"),
                  "Open a model folder, a .safetensors, index or .gguf file; reads headers only.")
      .def(
          "names",
          [](const TensorTable& table) {
            nb::list names;
            for (const TensorEntry& entry : table.tensors) names.append(nb::str(entry.name.data(), entry.name.size()));
            return names;
          },
          nb::sig("def names(self) -> list[str]"), "Names of all tensors, sorted by their UTF-8 bytes.")
      .def("entry", entry_tuple, "name"_a,
           nb::sig("def entry(self, name: str) -> tuple[str, tuple[int, ...], str, int, int]"),
           "(storage type, shape outermost first, file path, offset in the file, bytes) of a tensor.")
      .def("read_f32", read_f32, "name"_a,
           "The tensor as a new float32 array of its shape; quantised blocks are expanded.")
      .def_prop_ro(
          "metadata",
          [](const TensorTable& table) {
            nb::dict all;
            for (const auto& [key, value] : table.metadata) all[nb::str(key.data(), key.size())] = to_python(value);
            return all;
          },
          nb::sig("def metadata(self) -> dict[str, object]"),
          "The container's key-values, converted anew at each call.")
      .def("__len__", [](const TensorTable& table) { return table.tensors.size(); })
      .def("__contains__", [](const TensorTable& table, std::string_view name) { return table.find(name) != nullptr; });

  m.def("open_checkpoint", open_released, "path"_a,
        nb::sig("def open_checkpoint(path: str | os.PathLike[str]) -> TensorTable"), "As TensorTable.open.");
  m.def("check_model_file", io::check_model_file, "folder"_a, "name"_a,
        nb::sig("def check_model_file(folder: str | os.PathLike[str], name: str) -> pathlib.Path"),
        "The real path of a file of a model folder; raises CheckpointError when it is missing, its name is not plain, "
        "or a link leads out.");
  m.def(
      "parse_safetensors_header",
      [](const nb::bytes& head, std::uint64_t file_size, std::string_view file) {
        return io::parse_safetensors_header(bytes_of(head), file_size, file);
      },
      "head"_a, "file_size"_a, "file"_a = "memory", "Parse a safetensors header from the first bytes of a file.");
  m.def(
      "parse_safetensors_index",
      [](const nb::bytes& text, std::string_view file) {
        const io::SafetensorsIndex index = io::parse_safetensors_index(io::as_text(bytes_of(text)), file);
        nb::dict shard_of;
        for (const auto& [tensor, shard] : index.listings)
          shard_of[nb::str(tensor.data(), tensor.size())] = index.shards[shard];
        return shard_of;
      },
      "text"_a, "file"_a = "memory",
      nb::sig("def parse_safetensors_index(text: bytes, file: str = 'memory') -> dict[str, str]"),
      "Parse model.safetensors.index.json: the shard of each tensor.");
  m.def("parse_gguf", parse_gguf_bytes, "head"_a, "file_size"_a, "file"_a = "memory",
        "Parse the head of a GGUF file; InvalidArgumentError when `head` is too short a piece of it.");
}

}  // namespace lamella
