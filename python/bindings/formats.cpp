// Weight formats for Python: which each weight gets, and what that does to what the checkpoint stores.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "memory/resident_weights.h"
#include "store/choose_formats.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

/// A weight's format beside what the file stores.
struct NamedChoice {
  std::string weight, stored, conversion;
  WeightFormat format;
  std::int64_t bytes;
};

std::vector<NamedChoice> choose_for_checkpoint(const ModelSpec& spec, const LoadRecipe& recipe,
                                               const io::TensorTable& tensors, const std::string& quantization,
                                               DataType dtype) {
  std::vector<WeightDeclaration> declared = declare_weights(spec);
  const std::vector<FormatChoice> choices =
      choose_formats(declared, recipe, tensors, quantization_named(quantization), dtype);
  std::vector<NamedChoice> named;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    declared[i].format = choices[i].format;
    named.push_back(
        {.weight = to_string(declared[i].id),
         .stored = std::string(io::traits(choices[i].stored).name),
         .conversion = std::string(to_string(choices[i].conversion)),
         .format = choices[i].format,
         .bytes = static_cast<std::int64_t>(ResidentWeights::planned_bytes(std::span(declared).subspan(i, 1)))});
  }
  return named;
}

std::vector<WeightFormat> choose_for_shape(const ModelSpec& spec, const std::string& quantization, DataType dtype) {
  return choose_formats(declare_weights(spec), quantization_named(quantization), dtype);
}

std::int64_t bytes_of(const ModelSpec& spec, const std::vector<WeightFormat>& formats) {
  std::vector<WeightDeclaration> declared = declare_weights(spec);
  set_formats(declared, formats);
  return static_cast<std::int64_t>(ResidentWeights::planned_bytes(declared));
}

}  // namespace

void bind_formats(nb::module_& m) {
  nb::class_<WeightFormat>(m, "WeightFormat", "How a weight matrix's numbers are written down (weight_format.h).")
      .def("__str__", [](const WeightFormat& format) { return to_string(format); })
      .def(
          "__eq__", [](const WeightFormat& a, const WeightFormat& b) { return a == b; }, nb::is_operator(),
          nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", [](const WeightFormat& format) { return nb::hash(nb::str(to_string(format).c_str())); });

  nb::class_<NamedChoice>(m, "FormatChoice", "What becomes of one weight of a checkpoint.")
      .def_ro("weight", &NamedChoice::weight, "Canonical name.")
      .def_ro("stored", &NamedChoice::stored, "The type in the file, by the container's name.")
      .def_ro("format", &NamedChoice::format)
      .def_ro("conversion", &NamedChoice::conversion, "kept, rounded, converted, quantised or expanded.")
      .def_ro("bytes", &NamedChoice::bytes, "Bytes that it takes in memory.");

  m.def("choose_formats", choose_for_checkpoint, "spec"_a, "recipe"_a, "tensors"_a, "quantization"_a, "dtype"_a,
        "One choice a declared weight, in their order. `quantization` is a preset's name; \"none\" keeps what is "
        "stored.");
  m.def("choose_formats_for_shape", choose_for_shape, "spec"_a, "quantization"_a, "dtype"_a,
        "Formats for a shape without a checkpoint, one a declared weight.");
  m.def("resident_bytes", bytes_of, "spec"_a, "weight_formats"_a, "Bytes that the weights take in memory.");
}

}  // namespace lamella
