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

WeightFormat preset_format(const FormatOptions& options) noexcept {
  switch (options.quantization) {
    case Quantization::none:
    case Quantization::dequantize: return float_format(options.dtype);
    case Quantization::int8_weight_only: return formats::int8_weight_only;
    case Quantization::int8: return formats::int8;
    case Quantization::int4: return formats::int4;
    case Quantization::int4_a8: return formats::int4_a8;
  }
  return float_format(options.dtype);
}

/// A weight as the file has it; `by_columns`: its rows are not whole there.
struct Stored {
  io::StorageType type = f32;
  bool by_columns = false;

  [[nodiscard]] bool keeps_codes_in(const WeightFormat& format) const noexcept {
    return !by_columns && keeps_codes(type, format);
  }
};

WeightFormat format_for(const WeightDeclaration& weight, const Stored& stored, const FormatOptions& options) noexcept {
  const Slot slot = weight.id.slot;
  if (is_vector(slot)) return formats::f32;
  // Small tables of great effect: positions, and routers, of whose logits a near-tie decides which experts compute.
  if (slot == Slot::position_embedding || slot == Slot::type_embedding || slot == Slot::router ||
      slot == Slot::shared_router)
    return float_format(options.dtype);
  if (options.quantization == Quantization::none && is_quantised_type(stored.type))
    return (stored.by_columns ? std::nullopt : kept_format(stored.type)).value_or(formats::q8_0);
  const WeightFormat format = preset_format(options);
  const bool vocabulary = slot == Slot::token_embedding || slot == Slot::head;
  if (vocabulary && is_quantised(format) && !(weight.makes_logits && options.quantize_head))
    return formats::int8_weight_only;
  if (options.smoothing && format == formats::int8 && !is_embedding(slot)) return formats::int8_rotated;
  return format;
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

Conversion conversion_of(const WeightFormat& format, const Stored& stored) noexcept {
  if (!is_quantised_type(stored.type))
    return is_quantised(format)                 ? Conversion::quantised
           : holds(format.element, stored.type) ? Conversion::kept
                                                : Conversion::rounded;
  if (!is_quantised(format)) return Conversion::expanded;
  return stored.keeps_codes_in(format) && stored.type != q4_k ? Conversion::kept : Conversion::converted;
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

std::string_view to_string(Quantization quantization) noexcept {
  for (const auto& [name, preset] : presets)
    if (preset == quantization) return name;
  return "?";
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
                                         const io::TensorTable& tensors, const FormatOptions& options) {
  std::vector<FormatChoice> choices;
  for (const auto& [weight, source, tensor] : find_sources(declarations, recipe, tensors)) {
    const Stored stored{.type = tensor->type, .by_columns = source->transposed};
    const WeightFormat format = format_for(*weight, stored, options);
    choices.push_back({.format = format, .stored = stored.type, .conversion = conversion_of(format, stored)});
  }
  return choices;
}

std::vector<WeightFormat> choose_formats(std::span<const WeightDeclaration> declarations,
                                         const FormatOptions& options) {
  std::vector<WeightFormat> formats;
  for (const WeightDeclaration& weight : declarations) formats.push_back(format_for(weight, {}, options));
  return formats;
}

}  // namespace lamella
