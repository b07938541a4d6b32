#include "model/weights.h"

#include <iterator>

#include "base/check.h"

namespace lamella {
namespace {

constexpr std::string_view slot_names[] = {
    "token_embedding", "position_embedding", "type_embedding", "embedding_norm", "embedding_norm_bias",
    // a layer
    "attention_norm", "attention_norm_bias", "query", "query_bias", "key", "key_bias", "value", "value_bias",
    "query_norm", "key_norm", "attention_output", "attention_output_bias", "mlp_norm", "mlp_norm_bias", "mlp_gate",
    "mlp_gate_bias", "mlp_up", "mlp_up_bias", "mlp_down", "mlp_down_bias", "router", "router_bias", "shared_gate",
    "shared_gate_bias", "shared_up", "shared_up_bias", "shared_down", "shared_down_bias", "shared_router",
    // the head
    "final_norm", "final_norm_bias", "head", "head_bias", "pooler", "pooler_bias"};
static_assert(std::size(slot_names) == static_cast<std::size_t>(Slot::pooler_bias) + 1,
              "one name a slot, in its order");

constexpr std::int64_t most_int8_inputs = 65'536;

/// Collects declarations.
class Declarations {
 public:
  void matrix(Slot slot, std::int64_t rows, std::int64_t columns, Segment segment, bool makes_logits = false) {
    list_.push_back({.id = {.slot = slot, .layer = layer_, .expert = expert_},
                     .rows = rows,
                     .columns = columns,
                     .segment = segment,
                     .makes_logits = makes_logits});
  }
  void linear(Slot slot, std::int64_t outputs, std::int64_t inputs, bool bias, Segment segment) {
    matrix(slot, outputs, inputs, segment);
    if (bias) matrix(bias_of(slot), 1, outputs, segment);
  }
  void norm(Slot slot, const NormSpec& spec, std::int64_t width, Segment segment) {
    if (spec.kind == NormKind::none) return;
    matrix(slot, 1, width, segment);
    if (spec.bias) matrix(bias_of(slot), 1, width, segment);
  }
  void enter_layer(std::int32_t layer) noexcept { layer_ = layer; }
  void enter_expert(std::int32_t expert) noexcept { expert_ = expert; }
  [[nodiscard]] std::vector<WeightDeclaration> take() && { return std::move(list_); }

 private:
  std::vector<WeightDeclaration> list_;
  std::int32_t layer_ = -1, expert_ = -1;
};

void declare_attention(Declarations& out, const AttentionSpec& attention, std::int64_t hidden) {
  out.linear(Slot::query, attention.query_width(), hidden, attention.qkv_bias, Segment::norms_qkv);
  out.linear(Slot::key, attention.kv_width(), hidden, attention.qkv_bias, Segment::norms_qkv);
  out.linear(Slot::value, attention.kv_width(), hidden, attention.qkv_bias, Segment::norms_qkv);
  const bool together = attention.norm_across_heads;
  out.norm(Slot::query_norm, attention.query_norm, together ? attention.query_width() : attention.head_dim,
           Segment::norms_qkv);
  out.norm(Slot::key_norm, attention.key_norm, together ? attention.kv_width() : attention.head_dim,
           Segment::norms_qkv);
  out.linear(Slot::attention_output, hidden, attention.query_width(), attention.output_bias, Segment::attention_output);
}

void declare_experts(Declarations& out, const MlpSpec& mlp, std::int64_t hidden) {
  const ExpertsSpec& experts = *mlp.experts;
  out.matrix(Slot::router, experts.count, hidden, Segment::norms_qkv);
  if (experts.router == RouterKind::sigmoid_with_bias)
    out.matrix(Slot::router_bias, 1, experts.count, Segment::norms_qkv);
  if (experts.shared_gate) out.matrix(Slot::shared_router, 1, hidden, Segment::norms_qkv);
  if (const std::int64_t width = experts.shared_intermediate; width != 0) {
    if (mlp.gated) out.linear(Slot::shared_gate, width, hidden, mlp.up_bias, Segment::shared_expert);
    out.linear(Slot::shared_up, width, hidden, mlp.up_bias, Segment::shared_expert);
    out.linear(Slot::shared_down, hidden, width, mlp.down_bias, Segment::shared_expert);
  }
  for (std::int32_t expert = 0; expert < experts.count; ++expert) {
    out.enter_expert(expert);
    if (mlp.gated) out.linear(Slot::mlp_gate, experts.intermediate, hidden, mlp.up_bias, Segment::experts);
    out.linear(Slot::mlp_up, experts.intermediate, hidden, mlp.up_bias, Segment::experts);
    out.linear(Slot::mlp_down, hidden, experts.intermediate, mlp.down_bias, Segment::experts);
  }
  out.enter_expert(-1);
}

void declare_mlp(Declarations& out, const MlpSpec& mlp, std::int64_t hidden) {
  if (mlp.experts) return declare_experts(out, mlp, hidden);
  if (mlp.gated) out.linear(Slot::mlp_gate, mlp.intermediate, hidden, mlp.up_bias, Segment::mlp_up);
  out.linear(Slot::mlp_up, mlp.intermediate, hidden, mlp.up_bias, Segment::mlp_up);
  out.linear(Slot::mlp_down, hidden, mlp.intermediate, mlp.down_bias, Segment::mlp_down);
}

/// Both norms live in the first segment wherever the layer applies them: they are small, and design section 3 says so.
void declare_layer(Declarations& out, const LayerSpec& layer, std::int64_t hidden) {
  const bool norms_follow = layer.residual == Residual::post_norm;
  if (!norms_follow) out.norm(Slot::attention_norm, layer.attention_norm, hidden, Segment::norms_qkv);
  declare_attention(out, layer.attention, hidden);
  if (norms_follow) out.norm(Slot::attention_norm, layer.attention_norm, hidden, Segment::norms_qkv);
  if (!norms_follow) out.norm(Slot::mlp_norm, layer.mlp_norm, hidden, Segment::norms_qkv);
  declare_mlp(out, layer.mlp, hidden);
  if (norms_follow) out.norm(Slot::mlp_norm, layer.mlp_norm, hidden, Segment::norms_qkv);
}

}  // namespace

std::vector<WeightDeclaration> declare_weights(const ModelSpec& spec) {
  Declarations out;
  const EmbeddingSpec& embedding = spec.embedding;
  const HeadSpec& head = spec.head;
  const bool logits = head.kind == HeadKind::logits;
  out.matrix(Slot::token_embedding, spec.vocab, spec.hidden, Segment::embedding, logits && head.tied);
  if (embedding.positions == PositionKind::learned)
    out.matrix(Slot::position_embedding, embedding.position_rows, spec.hidden, Segment::embedding);
  if (embedding.token_types > 0)
    out.matrix(Slot::type_embedding, embedding.token_types, spec.hidden, Segment::embedding);
  out.norm(Slot::embedding_norm, embedding.norm, spec.hidden, Segment::embedding);

  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    out.enter_layer(static_cast<std::int32_t>(i));
    declare_layer(out, spec.layers[i], spec.hidden);
  }

  out.enter_layer(-1);
  out.norm(Slot::final_norm, head.norm, spec.hidden, Segment::head);
  if (logits && !head.tied) out.matrix(Slot::head, spec.vocab, spec.hidden, Segment::head, true);
  if (logits && head.bias) out.matrix(Slot::head_bias, 1, spec.vocab, Segment::head);
  if (head.kind == HeadKind::hidden && head.pooler)
    out.linear(Slot::pooler, spec.hidden, spec.hidden, true, Segment::head);
  return std::move(out).take();
}

bool can_cut_inputs(const WeightFormat& format, std::int64_t inputs, const ShardRange& run) noexcept {
  if (run.begin == 0 && run.end == inputs) return true;
  if (format.input == LinearInput::int8_rotated) return false;
  if (!is_quantised(format)) return true;
  return format.group != 0 && (run.begin % format.group == 0 && (run.end % format.group == 0 || run.end == inputs));
}

void validate(const WeightDeclaration& weight, const WeightFormat& format) {
  validate(format);
  check(!is_vector(weight.id.slot) || format == formats::f32, "the vector ", to_string(weight.id), " as ",
        to_string(format));
  if (is_embedding(weight.id.slot) && format.input == LinearInput::int8_rotated)
    throw Error(ErrorCode::invalid_argument, concat(to_string(weight.id), " cannot be ", to_string(format),
                                                    ": its rows are looked up as they are stored"));
  // A sum of 255 * 127 an input stays within 32 bits.
  if (has_int8_inputs(format) && format.group == 0 && weight.columns > most_int8_inputs)
    throw Error(ErrorCode::invalid_argument,
                concat(to_string(weight.id), " has ", weight.columns, " inputs; ", to_string(format), " takes rows of ",
                       most_int8_inputs, " at most"));
}

void set_formats(std::vector<WeightDeclaration>& declarations, std::span<const WeightFormat> formats) {
  check(declarations.size() == formats.size(), formats.size(), " formats for ", declarations.size(), " weights");
  for (std::size_t i = 0; i < formats.size(); ++i) {
    WeightDeclaration& weight = declarations[i];
    validate(weight, formats[i]);
    weight.format = formats[i];
  }
}

std::string_view to_string(Slot slot) noexcept {
  const auto index = static_cast<std::size_t>(slot);
  return index < std::size(slot_names) ? slot_names[index] : "?";
}

std::string_view to_string(Segment segment) noexcept {
  switch (segment) {
    case Segment::embedding: return "embedding";
    case Segment::norms_qkv: return "norms_qkv";
    case Segment::attention_output: return "attention_output";
    case Segment::mlp_up: return "mlp_up";
    case Segment::mlp_down: return "mlp_down";
    case Segment::shared_expert: return "shared_expert";
    case Segment::experts: return "experts";
    case Segment::head: return "head";
  }
  return "?";
}

std::string to_string(const WeightId& id) {
  if (id.layer < 0) return std::string(to_string(id.slot));
  if (id.expert < 0) return concat("layers.", id.layer, ".", to_string(id.slot));
  return concat("layers.", id.layer, ".experts.", id.expert, ".", to_string(id.slot));
}

std::int64_t parameter_count(const ModelSpec& spec) {
  std::int64_t total = 0;
  for (const WeightDeclaration& weight : declare_weights(spec))
    total = checked_add(total, checked_multiply(weight.rows, weight.columns, to_string(weight.id)), "parameter count");
  return total;
}

}  // namespace lamella
