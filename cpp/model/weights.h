// Which weights a model has: a closed set of slots, declared from the ModelSpec alone, each with its shape and segment.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lamella/weight_format.h"
#include "model/model_spec.h"
#include "model/shard.h"

namespace lamella {

/// A weight's role. Matrices are [outputs, inputs], rows contiguous along the inputs; vectors are one row. Every expert of a
/// mixture has its own mlp_gate, mlp_up and mlp_down.
enum class Slot : std::uint8_t {
  token_embedding,
  position_embedding,
  type_embedding,
  embedding_norm,
  embedding_norm_bias,
  attention_norm,
  attention_norm_bias,
  query,
  query_bias,
  key,
  key_bias,
  value,
  value_bias,
  query_norm,
  key_norm,
  attention_output,
  attention_output_bias,
  mlp_norm,
  mlp_norm_bias,
  mlp_gate,
  mlp_gate_bias,
  mlp_up,
  mlp_up_bias,
  mlp_down,
  mlp_down_bias,
  router,
  router_bias,  // of the choice, not of the weights: RouterKind::sigmoid_with_bias
  shared_gate,
  shared_gate_bias,
  shared_up,
  shared_up_bias,
  shared_down,
  shared_down_bias,
  shared_router,  // what gates the shared expert's result
  final_norm,
  final_norm_bias,
  head,
  head_bias,
  pooler,
  pooler_bias,
};

/// Tables from which rows are looked up.
[[nodiscard]] constexpr bool is_embedding(Slot slot) noexcept {
  return slot == Slot::token_embedding || slot == Slot::position_embedding || slot == Slot::type_embedding;
}

/// Norm weights and biases are vectors (one row, kept in fp32 whatever the dtype); everything else is a matrix.
[[nodiscard]] constexpr bool is_vector(Slot slot) noexcept {
  switch (slot) {
    case Slot::token_embedding:
    case Slot::position_embedding:
    case Slot::type_embedding:
    case Slot::query:
    case Slot::key:
    case Slot::value:
    case Slot::attention_output:
    case Slot::mlp_gate:
    case Slot::mlp_up:
    case Slot::mlp_down:
    case Slot::router:
    case Slot::shared_gate:
    case Slot::shared_up:
    case Slot::shared_down:
    case Slot::shared_router:
    case Slot::head:
    case Slot::pooler: return false;
    default: return true;
  }
}

/// The slot of the bias that belongs to this matrix or norm: it follows in the enum. For slots that can have one.
[[nodiscard]] constexpr Slot bias_of(Slot slot) noexcept {
  return static_cast<Slot>(static_cast<std::uint8_t>(slot) + 1);
}

/// The bulk-read unit that a weight belongs to (design section 3). Every expert is one of its own.
enum class Segment : std::uint8_t {
  embedding,
  norms_qkv,  // and the router
  attention_output,
  mlp_up,
  mlp_down,
  shared_expert,
  experts,
  head
};

/// One weight of a model: `layer` is -1 outside the layers, `expert` outside a mixture's experts.
struct WeightId {
  Slot slot = Slot::token_embedding;
  std::int32_t layer = -1;
  std::int32_t expert = -1;

  auto operator<=>(const WeightId&) const = default;
};

/// What one rank holds of a weight that is cut across several: `outputs` of a matrix, or elements of a vector, which may be
/// several runs and name some twice, and of a matrix the `inputs`.
struct WeightPart {
  std::vector<ShardRange> outputs;
  ShardRange inputs;
  std::int64_t whole_outputs = 0, whole_inputs = 0;  // 0: not a part, but the whole weight

  [[nodiscard]] explicit operator bool() const noexcept { return whole_outputs != 0; }
  bool operator==(const WeightPart&) const = default;
};

/// Whether a run of inputs can be cut out of a row of so many in that format, so that it has the same numbers wherever it was
/// quantised: floats, and whole groups of codes; no codes with one scale for the row, and no rotated inputs, each of which
/// is mixed with others of the whole row.
[[nodiscard]] bool can_cut_inputs(const WeightFormat& format, std::int64_t inputs, const ShardRange& run) noexcept;

struct WeightDeclaration {
  WeightId id;
  std::int64_t rows = 0;  // outputs; 1 for vectors
  std::int64_t columns = 0;
  Segment segment = Segment::embedding;
  WeightFormat format = formats::f32;  // of a matrix; vectors are fp32 always
  bool makes_logits = false;  // the head, or the token embedding that it is tied to
  WeightPart part = {};
};

/// Every weight that `spec` needs, in execution order, each exactly once. A tied head declares no weight of its own.
[[nodiscard]] std::vector<WeightDeclaration> declare_weights(const ModelSpec& spec);

/// Errors: invalid_argument for a record that no kernel reads, for an embedding in rotated codes and for int8 inputs to rows
/// so long that their integer sums could overflow; a broken invariant for a vector that is not fp32.
void validate(const WeightDeclaration& weight, const WeightFormat& format);

/// Gives every declaration its format, in order. Errors: those of validate; a broken invariant where the counts differ.
void set_formats(std::vector<WeightDeclaration>& declarations, std::span<const WeightFormat> formats);

/// Canonical name: "token_embedding", "layers.3.query_bias", "layers.3.experts.7.mlp_up", "final_norm". Recipes of family
/// files use these names.
[[nodiscard]] std::string to_string(const WeightId& id);
[[nodiscard]] std::string_view to_string(Slot slot) noexcept;
[[nodiscard]] std::string_view to_string(Segment segment) noexcept;

/// Number of parameters of the model, tied weights once.
[[nodiscard]] std::int64_t parameter_count(const ModelSpec& spec);

}  // namespace lamella
