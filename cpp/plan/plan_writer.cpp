#include "plan/plan_writer.h"

#include <algorithm>

#include "base/check.h"
#include "memory/kv_layout.h"

namespace lamella {

PlanWriter::PlanWriter(const ModelSpec& spec, const PlanOptions& plan_options) : options(plan_options), model_(spec) {
  plan_.bounds = options.bounds;
  longest_ = options.bounds.kv_blocks * kv_block_tokens;
  kv_groups_ = kv_groups(spec, longest_);
  plan_.weights = declare_weights(spec);
  if (!options.weight_formats.empty()) set_formats(plan_.weights, options.weight_formats);
  else
    for (WeightDeclaration& weight : plan_.weights)
      if (!is_vector(weight.id.slot)) weight.format = float_format(options.dtype);
  for (std::size_t i = 0; i < plan_.weights.size(); ++i)
    weights_.emplace(plan_.weights[i].id, WeightIndex{static_cast<std::uint32_t>(i)});
}

void PlanWriter::enter_layer(std::int32_t layer) {
  layer_ = layer;
  region_ = Region::none;
}

BufferId PlanWriter::input(std::string_view name, std::vector<Dim> shape) {
  return shared({std::string(name), BufferKind::input, DataType::i32, std::move(shape)});
}

/// The buffer of that name, which the first to ask for it adds.
BufferId PlanWriter::shared(Buffer buffer) {
  const auto [place, added] =
      shared_.try_emplace(buffer.name, BufferId{static_cast<std::uint32_t>(plan_.buffers.size())});
  if (added) plan_.buffers.push_back(std::move(buffer));
  return place->second;
}

BufferId PlanWriter::define(std::string_view name, DataType type, std::vector<Dim> shape) {
  const std::string prefix = layer_ < 0 ? "" : concat(layer_, ".");
  plan_.buffers.push_back({prefix + std::string(name), BufferKind::activation, type, std::move(shape)});
  return BufferId{static_cast<std::uint32_t>(plan_.buffers.size() - 1)};
}

WeightIndex PlanWriter::weight(Slot slot) const { return weight({.slot = slot, .layer = layer_}); }

WeightIndex PlanWriter::weight(const WeightId& id) const {
  const auto found = weights_.find(id);
  check(found != weights_.end(), "the plan asks for a weight that the model does not declare: ", to_string(id));
  return found->second;
}

Op& PlanWriter::append(OpKind kind, std::vector<BufferId> inputs, std::vector<BufferId> outputs) {
  return plan_.ops.emplace_back(Op{.kind = kind,
                                   .layer = layer_,
                                   .region = region_,
                                   .inputs = std::move(inputs),
                                   .outputs = std::move(outputs),
                                   .weights = {},
                                   .attributes = {}});
}

BufferId PlanWriter::embed(const EmbeddingSpec& embedding) {
  const std::vector<Dim> tokens = {sized(Symbol::tokens)};
  const BufferId y = define("embedded", options.dtype, {sized(Symbol::tokens), fixed(model_.hidden)});
  Op& op = append(OpKind::embed, {input("token_ids", tokens), input("positions", tokens), input("token_types", tokens)},
                  {y});
  op.weights = {weight(Slot::token_embedding)};
  if (embedding.positions == PositionKind::learned) op.weights.push_back(weight(Slot::position_embedding));
  if (embedding.token_types > 0) op.weights.push_back(weight(Slot::type_embedding));
  op.attributes.position_offset = embedding.position_offset;
  return y;
}

void PlanWriter::rope_tables() {
  const std::vector<Dim> tokens = {sized(Symbol::tokens)};
  for (const LayerSpec& layer : model_.layers) {
    const std::optional<RopeSpec>& rope = layer.attention.rope;
    if (!rope || std::ranges::find(angles_, *rope, &std::pair<RopeSpec, BufferId>::first) != angles_.end()) continue;
    const BufferId angles = define("angles", DataType::f32, {sized(Symbol::tokens), fixed(rope->rotary_dim)});
    append(OpKind::rope_table, {input("positions", tokens), input("rope_lengths", tokens)}, {angles}).attributes.rope =
        rope;
    angles_.emplace_back(*rope, angles);
  }
}

BufferId PlanWriter::norm(const NormSpec& spec, Slot slot, BufferId x, std::int32_t heads) {
  if (spec.kind == NormKind::none) return x;
  const BufferId y = define("normed", buffer(x).type, buffer(x).shape);
  Op& op = append(OpKind::norm, {x}, {y});
  op.attributes.norm = spec;
  op.attributes.heads = heads;
  op.weights = {weight(slot)};
  if (spec.bias) op.weights.push_back(weight(bias_of(slot)));
  return y;
}

BufferId PlanWriter::linear(Projection projection, BufferId x, std::string_view name) {
  return linear(projection, x, name, options.dtype);
}

BufferId PlanWriter::linear(Projection projection, BufferId x, std::string_view name, DataType type) {
  // The token embedding stands outside the layers also when it serves as the head.
  const WeightIndex matrix =
      weight({.slot = projection.weight, .layer = projection.weight == Slot::token_embedding ? -1 : layer_});
  const std::vector<Dim> shape = {buffer(x).shape.front(), fixed(plan_.weight(matrix).rows)};
  const BufferId y = define(name, type, shape);
  append(OpKind::linear, {x}, {y}).weights = {matrix};
  if (!projection.bias) return y;
  const BufferId biased = define(std::string(name) + "+b", type, shape);
  append(OpKind::add_bias, {y}, {biased}).weights = {weight(bias_of(projection.weight))};
  return biased;
}

BufferId PlanWriter::rope(const AttentionSpec& attention, BufferId x, std::int32_t heads) {
  const auto angles = std::ranges::find(angles_, *attention.rope, &std::pair<RopeSpec, BufferId>::first);
  check(angles != angles_.end(), "no table of angles for layer ", layer_);
  const BufferId y = define("rotated", options.dtype, buffer(x).shape);
  Op& op = append(OpKind::rope, {x, angles->second}, {y});
  op.attributes.rope = attention.rope;
  op.attributes.heads = heads;
  op.attributes.head_dim = attention.head_dim;
  return y;
}

KvGroups::Place PlanWriter::kv_place() const { return kv_groups_.layers.at(static_cast<std::size_t>(layer_)); }

/// The KV cache that this layer writes and reads. Causal layers keep theirs from step to step, in the slot that they
/// share with a layer of every other KV group; a bidirectional layer needs its keys and values only within the step, so
/// all such layers share one.
BufferId PlanWriter::kv_state(const AttentionSpec& attention) {
  const DataType type = options.kv_dtype.value_or(options.dtype);
  return shared({attention.causal ? concat("kv.", kv_place().slot) : std::string("kv.step"),
                 BufferKind::state,
                 type,
                 {fixed(options.kv_pool_blocks), fixed(2), fixed(attention.kv_heads), fixed(kv_block_tokens),
                  fixed(kv_row_elements(type, attention.head_dim))}});
}

std::vector<BufferId> PlanWriter::with_step_tables(std::vector<BufferId> inputs) {
  inputs.push_back(input("positions", {sized(Symbol::tokens)}));
  inputs.push_back(input("sequences", {sized(Symbol::sequences), fixed(2)}));
  inputs.push_back(input(block_table_name(kv_place().group), {sized(Symbol::sequences), sized(Symbol::kv_blocks)}));
  return inputs;
}

void PlanWriter::kv_write(const AttentionSpec& attention, BufferId k, BufferId v) {
  Op& op = append(OpKind::kv_write, with_step_tables({k, v}), {kv_state(attention)});
  op.attributes.kv_heads = attention.kv_heads;
  op.attributes.head_dim = attention.head_dim;
}

BufferId PlanWriter::split_heads(const AttentionSpec& attention, BufferId q) {
  const BufferId y =
      define("heads", options.dtype, {fixed(attention.heads), sized(Symbol::tokens), fixed(attention.head_dim)});
  Op& op = append(OpKind::split_heads, {q}, {y});
  op.attributes.heads = attention.heads;
  op.attributes.head_dim = attention.head_dim;
  return y;
}

BufferId PlanWriter::attend(const AttentionSpec& attention, BufferId q) {
  const BufferId y = define("attended", options.dtype, buffer(q).shape);
  std::vector<BufferId> inputs = with_step_tables({q});
  inputs.push_back(kv_state(attention));
  Op& op = append(OpKind::attention, std::move(inputs), {y});
  op.attributes.heads = attention.heads;
  op.attributes.kv_heads = attention.kv_heads;
  op.attributes.head_dim = attention.head_dim;
  op.attributes.scale = attention.scale;
  op.attributes.causal = attention.causal;
  op.attributes.window = binding_window(attention, longest_);
  return y;
}

BufferId PlanWriter::merge_heads(const AttentionSpec& attention, BufferId heads) {
  const BufferId y = define("context", options.dtype, {sized(Symbol::tokens), fixed(attention.query_width())});
  Op& op = append(OpKind::merge_heads, {heads}, {y});
  op.attributes.heads = attention.heads;
  op.attributes.head_dim = attention.head_dim;
  return y;
}

BufferId PlanWriter::activate(Activation activation, BufferId x) {
  if (activation == Activation::none) return x;
  const BufferId y = define("activated", buffer(x).type, buffer(x).shape);
  append(OpKind::activate, {x}, {y}).attributes.activation = activation;
  return y;
}

BufferId PlanWriter::activate_gated(Activation activation, BufferId gate, BufferId up) {
  const BufferId y = define("activated", options.dtype, buffer(gate).shape);
  Op& op = append(OpKind::activate_gated, {gate, up}, {y});
  op.attributes.activation = activation;
  op.attributes.gated = true;
  return y;
}

BufferId PlanWriter::residual(BufferId a, BufferId b) {
  const BufferId y = define("residual", options.dtype, buffer(b).shape);
  append(OpKind::residual, {a, b}, {y});
  return y;
}

PlanWriter::Routed PlanWriter::route(const ExpertsSpec& experts, BufferId logits, BufferId x) {
  const std::vector<Dim> chosen = {sized(Symbol::tokens), fixed(experts.top_k)};
  const BufferId table = define("experts", DataType::i32, chosen);
  const BufferId weights = define("expert_weights", DataType::f32, chosen);
  Op& chooses = append(OpKind::route, {logits}, {table, weights});
  if (experts.router == RouterKind::sigmoid_with_bias) chooses.weights = {weight(Slot::router_bias)};
  chooses.attributes.experts = experts;
  const BufferId rows = define("dispatched", buffer(x).type, {{Symbol::tokens, experts.top_k}, buffer(x).shape.back()});
  const BufferId offsets = define("offsets", DataType::i32, {fixed(std::int64_t{experts.count} + 1)});
  const BufferId places = define("places", DataType::i32, chosen);
  append(OpKind::dispatch, {x, table}, {rows, offsets, places}).attributes.experts = experts;
  return {weights, rows, offsets, places};
}

BufferId PlanWriter::expert_linear(Slot slot, const ExpertsSpec& experts, const Routed& routed, BufferId x,
                                   DataType type, std::string_view name) {
  const std::int64_t outputs = plan_.weight(weight({.slot = slot, .layer = layer_, .expert = 0})).rows;
  const BufferId y = define(name, type, {buffer(x).shape.front(), fixed(outputs)});
  Op& op = append(OpKind::expert_linear, {x, routed.offsets}, {y});
  op.attributes.experts = experts;
  for (std::int32_t expert = 0; expert < experts.count; ++expert)
    for (const Slot own : {slot, bias_of(slot)})
      if (const WeightId id{.slot = own, .layer = layer_, .expert = expert}; own == slot || has(id))
        op.weights.push_back(weight(id));
  return y;
}

BufferId PlanWriter::combine(const Routed& routed, BufferId rows, std::optional<BufferId> shared,
                             std::optional<BufferId> shared_gate) {
  const BufferId y = define("combined", options.dtype, {sized(Symbol::tokens), buffer(rows).shape.back()});
  Op& op = append(OpKind::combine, {rows, routed.places, routed.weights}, {y});
  if (shared) op.inputs.push_back(*shared);
  if (shared_gate) op.inputs.push_back(*shared_gate);
  return y;
}

BufferId PlanWriter::gather_rows(BufferId x, DataType type) {
  const BufferId y = define("rows", type, {sized(Symbol::rows), buffer(x).shape.back()});
  append(OpKind::gather_rows, {x, input("row_indices", {sized(Symbol::rows)})}, {y});
  return y;
}

BufferId PlanWriter::mean_pool(BufferId x) {
  const BufferId y = define("mean", DataType::f32, {sized(Symbol::sequences), buffer(x).shape.back()});
  append(OpKind::mean_pool, {x, input("sequences", {sized(Symbol::sequences), fixed(2)})}, {y});
  return y;
}

BufferId PlanWriter::vocabulary_logits(const HeadSpec& head, BufferId x) {
  const Slot slot = head.tied ? Slot::token_embedding : Slot::head;
  if (!head.tied || !head.bias) return linear({slot, head.bias}, x, "logits", DataType::f32);
  const BufferId y = linear({slot, false}, x, "logits", DataType::f32);
  const BufferId biased = define("logits+b", DataType::f32, buffer(y).shape);
  append(OpKind::add_bias, {y}, {biased}).weights = {weight(Slot::head_bias)};
  return biased;
}

BufferId PlanWriter::best_token(BufferId logits) {
  const BufferId y = define("best", DataType::f32, {sized(Symbol::rows), fixed(2)});
  append(OpKind::best_token, {logits}, {y});
  return y;
}

void PlanWriter::finish(BufferId x) {
  Buffer& output = plan_.buffers.at(static_cast<std::size_t>(x));
  output.kind = BufferKind::output;
  output.name = to_string(options.output);
}

Plan PlanWriter::take() { return without_unused_buffers(std::move(plan_)); }

}  // namespace lamella
