// Weight formats for Python: which each weight gets, and what that does to what the checkpoint stores.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "memory/resident_weights.h"
#include "named_choice.h"
#include "store/choose_formats.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

std::vector<NamedChoice> choose_for_checkpoint(const ModelSpec& spec, const LoadRecipe& recipe,
                                               const io::TensorTable& tensors, const FormatOptions& options) {
  std::vector<WeightDeclaration> declared = declare_weights(spec);
  const std::vector<FormatChoice> choices = choose_formats(declared, recipe, tensors, options);
  std::vector<NamedChoice> named;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    declared[i].format = choices[i].format;
    named.push_back(named_choice(declared[i], io::traits(choices[i].stored).name, choices[i].conversion));
  }
  return named;
}

std::vector<WeightFormat> choose_for_shape(const ModelSpec& spec, const FormatOptions& options) {
  return choose_formats(declare_weights(spec), options);
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

  nb::class_<FormatOptions>(m, "FormatOptions", "What formats are chosen by (store/choose_formats.h).")
      .def(
          "__init__",
          [](FormatOptions* self, const std::string& quantization, DataType dtype, bool smoothing, bool quantize_head) {
            new (self) FormatOptions{.quantization = quantization_named(quantization),
                                     .dtype = dtype,
                                     .smoothing = smoothing,
                                     .quantize_head = quantize_head};
          },
          nb::kw_only(), "quantization"_a, "dtype"_a, "smoothing"_a = true, "quantize_head"_a = false,
          "`quantization` is a preset's name; \"none\" keeps what is stored.")
      .def_prop_ro("quantization", [](const FormatOptions& self) { return std::string(to_string(self.quantization)); })
      .def_ro("dtype", &FormatOptions::dtype)
      .def_ro("smoothing", &FormatOptions::smoothing)
      .def_ro("quantize_head", &FormatOptions::quantize_head);

  nb::class_<NamedChoice>(m, "FormatChoice", "What becomes of one weight of a checkpoint.")
      .def_ro("weight", &NamedChoice::weight, "Canonical name.")
      .def_ro("stored", &NamedChoice::stored, "The type in the file, by the container's name.")
      .def_ro("format", &NamedChoice::format)
      .def_ro("conversion", &NamedChoice::conversion, "kept, rounded, converted, quantised or expanded.")
      .def_ro("bytes", &NamedChoice::bytes, "Bytes that it takes in memory.");

  m.def("choose_formats", choose_for_checkpoint, "spec"_a, "recipe"_a, "tensors"_a, "options"_a,
        "One choice a declared weight, in their order.");
  m.def("choose_formats_for_shape", choose_for_shape, "spec"_a, "options"_a,
        "Formats for a shape without a checkpoint, one a declared weight.");
  m.def("resident_bytes", bytes_of, "spec"_a, "weight_formats"_a, "Bytes that the weights take in memory.");
}

}  // namespace lamella
