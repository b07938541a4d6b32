#include "store/choose_formats.h"

#include <array>
#include <utility>

#include "base/check.h"
#include "store/find_source.h"
#include "store/gguf_codes.h"

namespace lamella {
namespace {

using enum io::StorageType;

constexpr std::array presets = {
    std::pair{std::string_view("none"), Quantization::none},
    std::pair{std::string_view("dequantize"), Quantization::dequantize},
    std::pair{std::string_view("int8_weight_only"), Quantization::int8_weight_only},
    std::pair{std::string_view("int8"), Quantization::int8},
    std::pair{std::string_view("int4"), Quantization::int4},
    std::pair{std::string_view("int4_a8"), Quantization::int4_a8},
};

bool is_quantised_type(io::StorageType type) noexcept { return type >= q4_0; }

WeightFormat preset_format(Slot slot, Quantization quantization, DataType dtype) noexcept {
  const bool vocabulary = slot == Slot::token_embedding || slot == Slot::head;
  switch (quantization) {
    case Quantization::none:
    case Quantization::dequantize: return float_format(dtype);
    case Quantization::int8_weight_only: return formats::int8_weight_only;
    case Quantization::int8: return vocabulary ? formats::int8_weight_only : formats::int8;
    case Quantization::int4: return vocabulary ? formats::int8_weight_only : formats::int4;
    case Quantization::int4_a8: return vocabulary ? formats::int8_weight_only : formats::int4_a8;
  }
  return float_format(dtype);
}

bool always_dtype(Slot slot) noexcept { return slot == Slot::position_embedding || slot == Slot::type_embedding; }

/// The format of a weight that the file stores as `stored`; `by_columns`: its rows are not whole there.
WeightFormat format_for(const WeightDeclaration& weight, io::StorageType stored, bool by_columns,
                        Quantization quantization, DataType dtype) noexcept {
  const Slot slot = weight.id.slot;
  if (is_vector(slot)) return formats::f32;
  if (always_dtype(slot)) return float_format(dtype);
  if (quantization != Quantization::none || !is_quantised_type(stored)) return preset_format(slot, quantization, dtype);
  return (by_columns ? std::nullopt : kept_format(stored)).value_or(formats::q8_0);
}

/// Whether every number of the stored type is one of the element's.
bool holds(Element element, io::StorageType stored) noexcept {
  switch (element) {
    case Element::f32: return stored != f64;
    case Element::f16: return stored == f16 || stored == f8_e4m3 || stored == f8_e5m2;
    case Element::bf16: return stored == bf16 || stored == f8_e4m3 || stored == f8_e5m2;
    default: return false;
  }
}

Conversion conversion_of(const WeightFormat& format, io::StorageType stored, bool by_columns) noexcept {
  if (!is_quantised_type(stored))
    return is_quantised(format)            ? Conversion::quantised
           : holds(format.element, stored) ? Conversion::kept
                                           : Conversion::rounded;
  if (!is_quantised(format)) return Conversion::expanded;
  const bool kept = !by_columns && keeps_codes(stored, format) && stored != q4_k;
  return kept ? Conversion::kept : Conversion::converted;
}

}  // namespace

Quantization quantization_named(std::string_view name) {
  std::string known;
  for (const auto& [preset, quantization] : presets) {
    if (preset == name) return quantization;
    known += concat(known.empty() ? "" : ", ", preset);
  }
  throw Error(ErrorCode::invalid_argument, concat("quantization is ", quoted(name), "; expected ", known));
}

std::string_view to_string(Conversion conversion) noexcept {
  switch (conversion) {
    case Conversion::kept: return "kept";
    case Conversion::rounded: return "rounded";
    case Conversion::converted: return "converted";
    case Conversion::quantised: return "quantised";
    case Conversion::expanded: return "expanded";
  }
  return "?";
}

std::vector<FormatChoice> choose_formats(std::span<const WeightDeclaration> declarations, const LoadRecipe& recipe,
                                         const io::TensorTable& tensors, Quantization quantization, DataType dtype) {
  std::vector<FormatChoice> choices;
  for (const auto& [weight, source, tensor] : find_sources(declarations, recipe, tensors)) {
    const WeightFormat format = format_for(*weight, tensor->type, source->transposed, quantization, dtype);
    choices.push_back({.format = format,
                       .stored = tensor->type,
                       .conversion = conversion_of(format, tensor->type, source->transposed)});
  }
  return choices;
}

std::vector<WeightFormat> choose_formats(std::span<const WeightDeclaration> declarations, Quantization quantization,
                                         DataType dtype) {
  std::vector<WeightFormat> formats;
  for (const WeightDeclaration& weight : declarations)
    formats.push_back(format_for(weight, f32, false, quantization, dtype));
  return formats;
}

}  // namespace lamella
