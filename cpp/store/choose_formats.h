// Which format each weight of an engine gets, and what that does to what the checkpoint stores.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "io/tensor_table.h"
#include "lamella/types.h"
#include "model/load_recipe.h"
#include "model/weights.h"

namespace lamella {

/// The presets of the option `quantization`.
///   none              what the checkpoint stores: codes that a format keeps (store/gguf_codes.h) stay, every other
///                     quantised type becomes int8 in groups of 32, floats become the dtype
///   dequantize        the dtype everywhere
///   int8_weight_only  int8 by rows
///   int8              the same, and linears round their inputs to int8 per token, rotated
///   int4, int4_a8     int4 in groups of 32, without and with int8 inputs
/// Token embedding and head are int8_weight_only under int8 and both int4 presets unless asked: a head's errors reach the
/// logits unmixed. Position and type embeddings are the dtype always: they are small, and added, not multiplied.
enum class Quantization : std::uint8_t { none, dequantize, int8_weight_only, int8, int4, int4_a8 };

struct FormatOptions {
  Quantization quantization = Quantization::none;
  DataType dtype = DataType::f32;
  /// Under int8, inputs are rotated first (memory/rotation.h): SmolLM2's perplexity rises by 0.4 % then, without by 4.3 %.
  /// int4 keeps its weights as they are: rotated, those that a 4-bit file once gave lost more than their inputs gained.
  bool smoothing = true;
  /// The head, or the token embedding that it is tied to, has the preset's format; an embedding's is never rotated.
  bool quantize_head = false;
};

/// The preset of that name, "none" among them. Errors: invalid_argument listing the names.
[[nodiscard]] Quantization quantization_named(std::string_view name);
[[nodiscard]] std::string_view to_string(Quantization quantization) noexcept;

/// What happens to a weight's numbers on their way from the file. kept: bit for bit (GGUF codes; floats of the same
/// type or a wider one). rounded: floats to a narrower float. converted: one quantised form to another, codes or scales
/// changed. quantised: floats to codes. expanded: codes to floats.
enum class Conversion : std::uint8_t { kept, rounded, converted, quantised, expanded };
[[nodiscard]] std::string_view to_string(Conversion conversion) noexcept;

struct FormatChoice {
  WeightFormat format;
  io::StorageType stored = io::StorageType::f32;
  Conversion conversion = Conversion::kept;
};

/// One choice a declaration, in their order; the declarations' own formats are not read. Errors: invalid_checkpoint
/// where a weight has no source or its tensor is missing.
[[nodiscard]] std::vector<FormatChoice> choose_formats(std::span<const WeightDeclaration> declarations,
                                                       const LoadRecipe& recipe, const io::TensorTable& tensors,
                                                       const FormatOptions& options);

/// Formats for a shape without a checkpoint: as if it stored floats.
[[nodiscard]] std::vector<WeightFormat> choose_formats(std::span<const WeightDeclaration> declarations,
                                                       const FormatOptions& options);

}  // namespace lamella
