#include "model/model_spec.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"
#include "model/weights.h"

namespace lamella {
namespace {

constexpr std::int64_t largest_dimension = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t largest_tensor = std::int64_t{1} << 48;  // elements
constexpr std::size_t most_layers = 4096;
constexpr std::int32_t most_experts = 1024, most_top_k = 64;

/// Says which part of the spec is looked at ("layers.3.attention.") and throws about its fields.
class Part {
 public:
  explicit Part(std::string path) : path_(std::move(path)) {}

  [[nodiscard]] Part sub(std::string_view name) const { return Part(concat(path_, name, ".")); }

  template <typename Value, typename... Expected>
  void expect(bool holds, std::string_view field, const Value& found, const Expected&... expected) const {
    if (!holds)
      throw Error(ErrorCode::invalid_checkpoint, concat("model spec: ", path_, field, " is ", found, ", expected ",
                                                        expected..., "; check the model's config"));
  }
  /// Named room: fields that the spec can carry and no part of the engine computes yet.
  void not_built(bool used, std::string_view field, std::string_view what) const {
    if (used)
      throw Error(ErrorCode::unsupported_model,
                  concat("model spec: ", path_, field, ": ", what, " is not supported yet"));
  }
  void dimension(std::string_view field, std::int64_t value) const {
    expect(value > 0 && value <= largest_dimension, field, value, "1 to ", largest_dimension);
  }
  void finite_positive(std::string_view field, double value) const {
    expect(std::isfinite(value) && value > 0, field, value, "a finite number above 0");
  }
  template <typename Enum>
  void known(std::string_view field, Enum value, Enum last) const {
    expect(value <= last, field, static_cast<int>(value), "at most ", static_cast<int>(last));
  }

 private:
  std::string path_;
};

void validate_norm(const Part& part, const NormSpec& norm) {
  part.known("kind", norm.kind, NormKind::rms_norm);
  if (norm.kind == NormKind::none) return;
  part.expect(std::isfinite(norm.eps) && norm.eps >= 0 && norm.eps < 1, "eps", norm.eps, "0 <= eps < 1");
  part.not_built(norm.kind == NormKind::rms_norm && norm.bias, "bias", "RMSNorm with a bias");
}

void validate_longrope_factors(const Part& part, std::string_view field, const std::vector<float>& factors,
                               std::size_t expected) {
  part.expect(factors.size() == expected, field, factors.size(), expected, " numbers (rotary_dim / 2)");
  for (const float factor : factors) part.finite_positive(field, factor);
}

void validate_rope(const Part& part, const RopeSpec& rope, std::int32_t head_dim) {
  part.known("scaling", rope.scaling, RopeScaling::llama3);
  part.expect(rope.rotary_dim >= 2 && rope.rotary_dim <= head_dim && rope.rotary_dim % 2 == 0, "rotary_dim",
              rope.rotary_dim, "an even number from 2 to head_dim (", head_dim, ")");
  part.finite_positive("theta", rope.theta);
  part.expect(rope.theta <= std::numeric_limits<float>::max(), "theta", rope.theta, "a number that fits fp32");
  if (rope.scaling == RopeScaling::none) return;
  part.finite_positive("factor", rope.factor);
  if (rope.attention_factor) part.finite_positive("attention_factor", *rope.attention_factor);
  if (rope.scaling == RopeScaling::linear) return;
  part.expect(rope.original_max_positions > 0, "original_max_positions", rope.original_max_positions, "above 0");
  switch (rope.scaling) {
    case RopeScaling::dynamic_ntk:
      part.expect(rope.rotary_dim > 2, "rotary_dim", rope.rotary_dim, "above 2 for dynamic scaling");
      part.expect(rope.factor >= 1, "factor", rope.factor, "at least 1 for dynamic scaling");
      break;
    case RopeScaling::yarn:
      part.expect(rope.theta > 1, "theta", rope.theta, "above 1 for yarn scaling");
      part.finite_positive("beta_fast", rope.beta_fast);
      part.finite_positive("beta_slow", rope.beta_slow);
      part.expect(std::isfinite(rope.mscale) && rope.mscale >= 0, "mscale", rope.mscale,
                  "a finite number, 0 for absent");
      part.expect(std::isfinite(rope.mscale_all_dim) && rope.mscale_all_dim >= 0, "mscale_all_dim", rope.mscale_all_dim,
                  "a finite number, 0 for absent");
      break;
    case RopeScaling::longrope:
      part.expect(rope.attention_factor || rope.factor <= 1 || rope.original_max_positions > 1,
                  "original_max_positions", rope.original_max_positions, "above 1 for longrope scaling");
      validate_longrope_factors(part, "short_factor", rope.short_factor, static_cast<std::size_t>(rope.rotary_dim / 2));
      validate_longrope_factors(part, "long_factor", rope.long_factor, static_cast<std::size_t>(rope.rotary_dim / 2));
      break;
    case RopeScaling::llama3:
      part.finite_positive("low_freq_factor", rope.low_freq_factor);
      part.finite_positive("high_freq_factor", rope.high_freq_factor);
      part.expect(rope.high_freq_factor > rope.low_freq_factor, "high_freq_factor", rope.high_freq_factor,
                  "above low_freq_factor (", rope.low_freq_factor, ")");
      break;
    case RopeScaling::none:
    case RopeScaling::linear: break;
  }
}

void validate_attention(const Part& part, const AttentionSpec& attention, PositionKind positions) {
  part.dimension("heads", attention.heads);
  part.dimension("head_dim", attention.head_dim);
  part.dimension("query_width", attention.query_width());
  part.expect(
      attention.kv_heads > 0 && attention.kv_heads <= attention.heads && attention.heads % attention.kv_heads == 0,
      "kv_heads", attention.kv_heads, "a divisor of heads (", attention.heads, ")");
  part.finite_positive("scale", attention.scale);
  part.expect(attention.rope.has_value() == (positions == PositionKind::rotary), "rope",
              attention.rope ? "present" : "absent",
              positions == PositionKind::rotary ? "present, because positions are rotary"
                                                : "absent, because positions are not rotary");
  if (attention.rope) validate_rope(part.sub("rope"), *attention.rope, attention.head_dim);
  validate_norm(part.sub("query_norm"), attention.query_norm);
  validate_norm(part.sub("key_norm"), attention.key_norm);
  part.not_built(attention.query_norm.bias || attention.key_norm.bias, "query_norm", "a norm of queries with a bias");
  part.expect(attention.window >= 0, "window", attention.window, "0 or more");
  part.expect(attention.window == 0 || attention.causal, "window", attention.window, "0 for bidirectional attention");
  part.not_built(attention.logit_softcap != 0.0F, "logit_softcap", "soft-capping of attention scores");
}

void validate_experts(const Part& part, const ExpertsSpec& experts) {
  part.known("router", experts.router, RouterKind::top_1);
  part.expect(experts.count >= 1 && experts.count <= most_experts, "count", experts.count, "1 to ", most_experts);
  const std::int32_t most = std::min(experts.count, most_top_k);
  part.expect(experts.top_k >= 1 && experts.top_k <= most, "top_k", experts.top_k, "1 to ", most, " of ", experts.count,
              " experts");
  part.expect(experts.router != RouterKind::top_1 || experts.top_k == 1, "top_k", experts.top_k, "1 for this router");
  part.dimension("intermediate", experts.intermediate);
  part.finite_positive("scale", experts.scale);
  part.expect(experts.router == RouterKind::sigmoid_with_bias || experts.scale == 1.0F, "scale", experts.scale,
              "1 for this router");
  if (experts.shared_intermediate != 0) part.dimension("shared_intermediate", experts.shared_intermediate);
  part.expect(experts.shared_intermediate != 0 || !experts.shared_gate, "shared_gate", experts.shared_gate,
              "false without a shared expert");
}

void validate_mlp(const Part& part, const MlpSpec& mlp) {
  part.known("activation", mlp.activation, Activation::quick_gelu);
  if (!mlp.experts) return part.dimension("intermediate", mlp.intermediate);
  part.expect(mlp.intermediate == 0, "intermediate", mlp.intermediate, "0 beside experts, which have their own");
  validate_experts(part.sub("experts"), *mlp.experts);
}

void validate_layer(const Part& part, const LayerSpec& layer, PositionKind positions) {
  part.known("residual", layer.residual, Residual::post_norm);
  validate_norm(part.sub("attention_norm"), layer.attention_norm);
  validate_norm(part.sub("mlp_norm"), layer.mlp_norm);
  part.expect(layer.attention_norm.kind != NormKind::none, "attention_norm.kind", "none", "a norm");
  part.expect(layer.mlp_norm.kind != NormKind::none || layer.residual == Residual::parallel, "mlp_norm.kind", "none",
              "a norm (only parallel layers may share the attention's)");
  validate_attention(part.sub("attention"), layer.attention, positions);
  validate_mlp(part.sub("mlp"), layer.mlp);
}

void validate_embedding(const Part& part, const EmbeddingSpec& embedding, std::int32_t max_positions) {
  part.known("positions", embedding.positions, PositionKind::rotary);
  if (embedding.positions == PositionKind::learned) {
    part.expect(embedding.position_offset >= 0, "position_offset", embedding.position_offset, "0 or more");
    part.expect(std::int64_t{embedding.position_rows} - embedding.position_offset >= max_positions, "position_rows",
                embedding.position_rows, "at least max_positions + position_offset (", max_positions, " + ",
                embedding.position_offset, ")");
  } else {
    part.expect(embedding.position_rows == 0, "position_rows", embedding.position_rows, "0 without learned positions");
  }
  part.expect(embedding.token_types >= 0, "token_types", embedding.token_types, "0 or more");
  validate_norm(part.sub("norm"), embedding.norm);
  part.not_built(embedding.scale != 1.0F, "scale", "a scaled token embedding");
}

/// Layers of different retention share their memory (plan/kv_groups.h), so their K and V must have one shape.
void validate_kv_shapes(const ModelSpec& spec) {
  const auto kv_shape = [](const LayerSpec& layer) {
    return std::pair(layer.attention.kv_heads, layer.attention.head_dim);
  };
  const auto differ = [&](const auto& of) {
    return std::ranges::any_of(spec.layers, [&](const LayerSpec& layer) { return of(layer) != of(spec.layers[0]); });
  };
  std::set<std::int32_t> windows;
  for (const LayerSpec& layer : spec.layers) windows.insert(layer.attention.window);
  Part("").not_built(windows.size() > most_windows, "layers.attention.window",
                     concat("more than ", most_windows, " different windows in one model"));
  Part("").not_built(differ([](const LayerSpec& layer) { return layer.attention.window; }) && differ(kv_shape),
                     "layers.attention.window", "layers with different windows and different K and V shapes");
}

void validate_head(const Part& part, const HeadSpec& head, bool causal) {
  part.known("kind", head.kind, HeadKind::hidden);
  validate_norm(part.sub("norm"), head.norm);
  if (head.kind == HeadKind::logits) {
    part.expect(!head.pooler, "pooler", "true", "false for a logits head");
    part.not_built(!causal, "kind", "a vocabulary head on bidirectional attention");
  } else {
    part.expect(!head.tied && !head.bias, "tied or bias", "true", "false for a hidden-state head");
  }
}

}  // namespace

void validate(const ModelSpec& spec) {
  const Part whole("");
  whole.dimension("vocab", spec.vocab);
  whole.dimension("hidden", spec.hidden);
  whole.dimension("max_positions", spec.max_positions);
  whole.expect(!spec.layers.empty() && spec.layers.size() <= most_layers, "layers", spec.layers.size(), "1 to ",
               most_layers, " layers");
  validate_embedding(whole.sub("embedding"), spec.embedding, spec.max_positions);
  const bool causal = spec.layers.front().attention.causal;
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const Part layer(concat("layers.", i, "."));
    validate_layer(layer, spec.layers[i], spec.embedding.positions);
    layer.expect(spec.layers[i].attention.causal == causal, "attention.causal", !causal, "what layer 0 has (", causal,
                 ")");
  }
  validate_kv_shapes(spec);
  validate_head(whole.sub("head"), spec.head, causal);
  for (const WeightDeclaration& weight : declare_weights(spec))
    whole.expect(weight.rows <= largest_tensor / weight.columns, to_string(weight.id),
                 concat(weight.rows, " x ", weight.columns), "at most 2^48 elements");
}

}  // namespace lamella
