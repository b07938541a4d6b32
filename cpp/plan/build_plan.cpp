#include "plan/build_plan.h"

#include "base/check.h"
#include "plan/plan_writer.h"

namespace lamella {
namespace {

/// Which weights an MLP has: the layer's, or the shared expert's.
struct MlpSlots {
  Slot gate = Slot::mlp_gate, up = Slot::mlp_up;
};

/// Named sizes and the writer, so that the page below reads like the model.
struct Builder : PlanWriter {
  Builder(const ModelSpec& model, const PlanOptions& plan_options) : PlanWriter(model, plan_options), spec(model) {}
  const ModelSpec& spec;

  BufferId embedding();
  BufferId layer(const LayerSpec& l, BufferId x);
  BufferId attention(const LayerSpec& l, BufferId x);                        // A(N1 x), without the residual
  BufferId norm_before_mlp(const LayerSpec& l, BufferId x);                  // N2 x
  BufferId mlp(const LayerSpec& l, BufferId x, const MlpSlots& slots);       // act(up(N2 x))
  BufferId project(const Projection& output, BufferId x, BufferId residual);  // x W^T + bias + residual
  BufferId feed_forward(const LayerSpec& l, BufferId x, BufferId residual);  // M(N2 x) + residual
  BufferId experts(const LayerSpec& l, BufferId x, BufferId residual);       // the same of a mixture
  void head(BufferId x, PlanOutput output);
};

// ---- the forward pass ------------------------------------------------------------------------------------------
// T tokens, H hidden, Q query width, K key/value width, I intermediate, V vocabulary. Shapes stand at the right.

BufferId Builder::embedding() {
  BufferId x = embed(spec.embedding);                                        // [T, H]
  return norm(spec.embedding.norm, Slot::embedding_norm, x);                 // [T, H], BERT's
}

BufferId Builder::attention(const LayerSpec& l, BufferId x) {
  const AttentionSpec& a = l.attention;
  const bool pre_norm = l.residual != Residual::post_norm;

  begin(Region::qkv);
  if (pre_norm) x = norm(l.attention_norm, Slot::attention_norm, x);         // [T, H]
  BufferId q = linear({Slot::query, a.qkv_bias}, x, "q");                    // [T, Q]
  BufferId k = linear({Slot::key, a.qkv_bias}, x, "k");                      // [T, K]
  BufferId v = linear({Slot::value, a.qkv_bias}, x, "v");                    // [T, K]
  q = norm(a.query_norm, Slot::query_norm, q, a.norm_across_heads ? 0 : a.heads);
  k = norm(a.key_norm, Slot::key_norm, k, a.norm_across_heads ? 0 : a.kv_heads);
  if (a.rope) {
    q = rope(a, q, a.heads);
    k = rope(a, k, a.kv_heads);
  }
  kv_write(a, k, v);                                                         // into this layer's KV state

  begin(Region::attention);
  BufferId heads = split_heads(a, q);                                        // [heads, T, head_dim]
  heads = attend(a, heads);                                                  // [heads, T, head_dim]
  return merge_heads(a, heads);                                              // [T, Q]
}

// A parallel layer without a second norm shares the first: the cheap norm is computed twice to keep the region whole.
BufferId Builder::norm_before_mlp(const LayerSpec& l, BufferId x) {
  if (l.residual == Residual::post_norm) return x;
  const bool shares_norm = l.residual == Residual::parallel && l.mlp_norm.kind == NormKind::none;
  return norm(shares_norm ? l.attention_norm : l.mlp_norm, shares_norm ? Slot::attention_norm : Slot::mlp_norm, x);
}

BufferId Builder::mlp(const LayerSpec& l, BufferId x, const MlpSlots& slots) {
  const MlpSpec& m = l.mlp;
  begin(Region::mlp_up);
  x = norm_before_mlp(l, x);                                                 // [T, H]
  const BufferId up = linear({slots.up, m.up_bias}, x, "up");                // [T, I]
  if (!m.gated) return activate(m.activation, up);                           // [T, I]
  const BufferId gate = linear({slots.gate, m.up_bias}, x, "gate");          // [T, I]
  return activate_gated(m.activation, gate, up);                             // [T, I]
}

// E experts, of which k take a token; the shared expert takes all and stands in the sum beside them.
BufferId Builder::experts(const LayerSpec& l, BufferId x, BufferId residual_input) {
  const MlpSpec& m = l.mlp;
  const ExpertsSpec& e = *m.experts;

  begin(Region::route);
  const BufferId normed = norm_before_mlp(l, x);                             // [T, H]
  const BufferId scores = linear({Slot::router, false}, normed, "router", DataType::f32);  // [T, E]
  std::optional<BufferId> shared, shared_gate;
  if (e.shared_gate)
    shared_gate = linear({Slot::shared_router, false}, normed, "shared_gate", DataType::f32);  // [T, 1]
  const Routed to = route(e, scores, normed);                                // [k*T, H] by expert

  begin(Region::experts);
  const BufferId up = expert_linear(Slot::mlp_up, e, to, to.rows, options.dtype, "up");  // [k*T, I]
  BufferId rows = m.gated ? activate_gated(m.activation,                     // [k*T, I]
                                           expert_linear(Slot::mlp_gate, e, to, to.rows, options.dtype, "gate"), up)
                          : activate(m.activation, up);
  begin(Region::none);
  rows = expert_linear(Slot::mlp_down, e, to, rows, DataType::f32, "down");  // [k*T, H]

  if (e.shared_intermediate > 0) {
    shared = mlp(l, x, {.gate = Slot::shared_gate, .up = Slot::shared_up});  // [T, J]
    begin(Region::none);
    shared = linear({Slot::shared_down, m.down_bias}, *shared, "shared", DataType::f32);  // [T, H]
  }
  begin(Region::combine);
  return residual(combine(to, rows, shared, shared_gate), residual_input);   // [T, H]
}

BufferId Builder::project(const Projection& output, BufferId x, BufferId residual_input) {
  begin(Region::output);
  return residual(linear(output, x, "projected"), residual_input);           // [T, H]
}

BufferId Builder::feed_forward(const LayerSpec& l, BufferId x, BufferId residual_input) {
  if (l.mlp.experts) return experts(l, x, residual_input);
  return project({Slot::mlp_down, l.mlp.down_bias}, mlp(l, x, {}), residual_input);
}

BufferId Builder::layer(const LayerSpec& l, BufferId x) {
  const Projection attention_output{Slot::attention_output, l.attention.output_bias};
  switch (l.residual) {
    case Residual::sequential: {
      const BufferId h = project(attention_output, attention(l, x), x);      // h = x + A(N1 x)
      return feed_forward(l, h, h);                                          // y = h + M(N2 h)
    }
    case Residual::parallel: {
      const BufferId h = project(attention_output, attention(l, x), x);      // h = x + A(N1 x)
      return feed_forward(l, x, h);                                          // y = h + M(N2 x)
    }
    case Residual::post_norm: {
      BufferId h = project(attention_output, attention(l, x), x);
      begin(Region::none);
      h = norm(l.attention_norm, Slot::attention_norm, h);                   // h = N1(x + A x)
      const BufferId y = feed_forward(l, h, h);
      begin(Region::none);
      return norm(l.mlp_norm, Slot::mlp_norm, y);                            // y = N2(h + M h)
    }
  }
  throw Error(ErrorCode::internal, "residual topology without a case in build_plan");
}

void Builder::head(BufferId x, PlanOutput output) {
  switch (output) {
    case PlanOutput::logits: {
      x = gather_rows(x, options.dtype);                                     // [R, H]: only rows that need logits
      x = norm(spec.head.norm, Slot::final_norm, x);                         // [R, H]
      return finish(vocabulary_logits(spec.head, x));                        // [R, V] float32
    }
    case PlanOutput::greedy: {
      x = gather_rows(x, options.dtype);                                     // [R, H]
      x = norm(spec.head.norm, Slot::final_norm, x);                         // [R, H]
      begin(Region::head);
      return finish(best_token(vocabulary_logits(spec.head, x)));            // [R, 2] float32
    }
    case PlanOutput::hidden: return finish(gather_rows(norm(spec.head.norm, Slot::final_norm, x), DataType::f32));
    case PlanOutput::mean: return finish(mean_pool(norm(spec.head.norm, Slot::final_norm, x)));
    case PlanOutput::pooler: {
      x = gather_rows(norm(spec.head.norm, Slot::final_norm, x), options.dtype);  // [R, H]: the first tokens
      x = linear({Slot::pooler, true}, x, "pooled", DataType::f32);          // [R, H] float32
      return finish(activate(Activation::tanh, x));
    }
  }
}

}  // namespace

std::string_view to_string(PlanOutput output) noexcept {
  switch (output) {
    case PlanOutput::logits: return "logits";
    case PlanOutput::greedy: return "greedy";
    case PlanOutput::hidden: return "hidden";
    case PlanOutput::mean: return "mean";
    case PlanOutput::pooler: return "pooler";
  }
  return "?";
}

void require_output(const ModelSpec& spec, PlanOutput output) {
  if ((output == PlanOutput::logits || output == PlanOutput::greedy) && spec.head.kind != HeadKind::logits)
    throw Error(ErrorCode::unsupported_model, concat(spec.family, " is an encoder: it has no logits; use encode()"));
  if (output == PlanOutput::pooler && !spec.head.pooler)
    throw Error(ErrorCode::unsupported_model,
                concat("this ", spec.family, " checkpoint has no pooler; use pooling=\"mean\" or \"cls\""));
}

Plan build_plan(const ModelSpec& spec, const PlanOptions& options) {
  validate(spec);
  require_output(spec, options.output);
  Builder builder(spec, options);
  BufferId x = builder.embedding();
  builder.rope_tables();
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    builder.enter_layer(static_cast<std::int32_t>(i));
    x = builder.layer(spec.layers[i], x);
  }
  builder.leave_layers();
  builder.head(x, options.output);
  return builder.take();
}

}  // namespace lamella
