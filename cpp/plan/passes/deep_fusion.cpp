#include "plan/passes/deep_fusion.h"

#include <algorithm>
#include <array>
#include <span>

#include "plan/verify.h"

namespace lamella {
namespace {

using Run = std::span<const Op>;

/// A region's fused op and the ops that its kernel takes in, in any number; `last` must close the run, exactly once.
struct Rule {
  Region region;
  OpKind fused;
  OpKind first_of_many;  // the op that the region is about: at least one
  std::array<OpKind, 5> allowed;
  std::array<OpKind, 2> last;
};

constexpr std::array rules = {
    Rule{Region::qkv,
         OpKind::norm_qkv,
         OpKind::linear,
         {OpKind::norm, OpKind::linear, OpKind::add_bias, OpKind::rope, OpKind::kv_write},
         {OpKind::kv_write, OpKind::kv_write}},
    Rule{Region::attention,
         OpKind::layout_attention,
         OpKind::attention,
         {OpKind::split_heads, OpKind::attention, OpKind::merge_heads, OpKind::merge_heads, OpKind::merge_heads},
         {OpKind::merge_heads, OpKind::merge_heads}},
    Rule{Region::mlp_up,
         OpKind::norm_mlp_up,
         OpKind::linear,
         {OpKind::norm, OpKind::linear, OpKind::add_bias, OpKind::activate, OpKind::activate_gated},
         {OpKind::activate, OpKind::activate_gated}},
    Rule{Region::output,
         OpKind::output_residual,
         OpKind::linear,
         {OpKind::linear, OpKind::add_bias, OpKind::residual, OpKind::residual, OpKind::residual},
         {OpKind::residual, OpKind::residual}},
    // What stands behind the sum over ranks of an output linear.
    Rule{Region::output,
         OpKind::bias_residual,
         OpKind::residual,
         {OpKind::add_bias, OpKind::residual, OpKind::residual, OpKind::residual, OpKind::residual},
         {OpKind::residual, OpKind::residual}},
    Rule{Region::head,
         OpKind::greedy_head,
         OpKind::linear,
         {OpKind::linear, OpKind::add_bias, OpKind::best_token, OpKind::best_token, OpKind::best_token},
         {OpKind::best_token, OpKind::best_token}},
    // A mixture of experts (the paper's V-C): all but the last transform of the layout is one op.
    Rule{Region::route,
         OpKind::norm_route,
         OpKind::route,
         {OpKind::norm, OpKind::linear, OpKind::route, OpKind::dispatch, OpKind::dispatch},
         {OpKind::dispatch, OpKind::dispatch}},
    Rule{Region::experts,
         OpKind::expert_up,
         OpKind::expert_linear,
         {OpKind::expert_linear, OpKind::activate, OpKind::activate_gated, OpKind::activate, OpKind::activate},
         {OpKind::activate, OpKind::activate_gated}},
    Rule{Region::combine,
         OpKind::combine_residual,
         OpKind::combine,
         {OpKind::combine, OpKind::residual, OpKind::residual, OpKind::residual, OpKind::residual},
         {OpKind::residual, OpKind::residual}},
};

template <typename Range, typename Value>
bool among(const Range& range, Value value) {
  return std::ranges::find(range, value) != std::ranges::end(range);
}

/// Whether the run is made of the rule's ops.
bool fits(const Rule& rule, Run run) {
  const auto closes = [&](const Op& op) { return among(rule.last, op.kind); };
  return rule.region == run.front().region &&
         std::ranges::all_of(run, [&](const Op& op) { return among(rule.allowed, op.kind); }) &&
         std::ranges::count(run, rule.first_of_many, &Op::kind) > 0 && closes(run.back()) &&
         std::ranges::count_if(run, closes) == 1;
}

/// The rule for this run, or nullptr where the run lacks an op of the region or holds one that its kernel cannot take
/// in.
const Rule* rule_for(Run run, const Plan& plan) {
  const auto rule = std::ranges::find_if(rules, [&](const Rule& any) { return fits(any, run); });
  if (rule == rules.end()) return nullptr;
  // Norms of queries and keys stand between what the fused op takes in.
  const auto norms_heads = [&](const Op& op) {
    return plan.weight(op, Slot::query_norm) != nullptr || plan.weight(op, Slot::key_norm) != nullptr;
  };
  if (rule->fused == OpKind::norm_qkv && std::ranges::any_of(run, norms_heads)) return nullptr;
  // What ranks gathered instead of adding it up may have been rounded already.
  if (rule->fused == OpKind::bias_residual && plan.buffer(run.front().inputs[0]).type != DataType::f32) return nullptr;
  return &*rule;
}

/// The ops from `begin` on that share its layer and region; a residual ends the run, since a layer has two output
/// regions, and so does a collective, which stands by itself.
Run run_at(const Plan& plan, std::size_t begin) {
  const Op& first = plan.ops[begin];
  const auto alone = [](const Op& op) { return is_collective(op.kind); };
  std::size_t end = begin + 1;
  while (end < plan.ops.size() && plan.ops[end - 1].kind != OpKind::residual && !alone(plan.ops[end - 1]) &&
         !alone(plan.ops[end]) && plan.ops[end].layer == first.layer && plan.ops[end].region == first.region)
    ++end;
  return {plan.ops.data() + begin, end - begin};
}

/// Inputs of the run: what its ops read and none of them defines, in the order in which they are first read.
std::vector<BufferId> outer_inputs(Run run) {
  std::vector<BufferId> inner, outer;
  for (const Op& op : run) {
    for (const BufferId id : op.inputs)
      if (std::ranges::find(inner, id) == inner.end() && std::ranges::find(outer, id) == outer.end())
        outer.push_back(id);
    inner.insert(inner.end(), op.outputs.begin(), op.outputs.end());
  }
  return outer;
}

const Op* find(Run run, OpKind kind) {
  const auto found = std::ranges::find(run, kind, &Op::kind);
  return found == run.end() ? nullptr : &*found;
}

/// Everything that the run's ops carry, gathered into one op. Operands are set by the caller, in the order of op.h.
Op gathered(Run run, OpKind kind) {
  Op fused{.kind = kind,
           .layer = run.front().layer,
           .region = run.front().region,
           .inputs = {},
           .outputs = {},
           .weights = {},
           .attributes = {}};
  for (const Op& op : run) fused.weights.insert(fused.weights.end(), op.weights.begin(), op.weights.end());
  if (const Op* norm = find(run, OpKind::norm)) fused.attributes.norm = norm->attributes.norm;
  return fused;
}

Op fuse_qkv(Run run, const Plan& plan) {
  Op fused = gathered(run, OpKind::norm_qkv);
  const Op& write = run.back();
  const Op* rope = find(run, OpKind::rope);
  const std::vector<BufferId> outer = outer_inputs(run);
  const auto query = std::ranges::find_if(
      run, [&](const Op& op) { return op.kind == OpKind::linear && plan.weight(op, Slot::query) != nullptr; });
  // q is what the query linear's chain of bias and rotation leaves behind.
  BufferId q = query->outputs.front();
  for (const Op& op : run)
    if ((op.kind == OpKind::add_bias || op.kind == OpKind::rope) && op.inputs.front() == q) q = op.outputs.front();

  fused.inputs = {outer.front(), write.inputs[2], write.inputs[3], write.inputs[4]};
  if (rope != nullptr) fused.inputs.push_back(rope->inputs[1]);
  fused.outputs = {q, write.outputs.front()};
  fused.attributes.head_dim = write.attributes.head_dim;
  fused.attributes.kv_heads = write.attributes.kv_heads;
  fused.attributes.heads =
      static_cast<std::int32_t>(plan.weight(*query, Slot::query)->rows / write.attributes.head_dim);
  if (rope != nullptr) fused.attributes.rope = rope->attributes.rope;
  return fused;
}

Op fuse_route(Run run, const Plan& plan) {
  Op fused = gathered(run, OpKind::norm_route);
  fused.inputs = outer_inputs(run);
  fused.outputs = run.back().outputs;
  fused.outputs.push_back(find(run, OpKind::route)->outputs[1]);
  for (const Op& op : run)
    if (op.kind == OpKind::linear && plan.weight(op, Slot::shared_router) != nullptr)
      fused.outputs.push_back(op.outputs.front());
  fused.attributes.experts = run.back().attributes.experts;
  return fused;
}

Op fuse(Run run, OpKind kind, const Plan& plan) {
  if (kind == OpKind::norm_qkv) return fuse_qkv(run, plan);
  if (kind == OpKind::norm_route) return fuse_route(run, plan);
  Op fused = gathered(run, kind);
  fused.inputs = outer_inputs(run);
  fused.outputs = run.back().outputs;
  if (kind == OpKind::layout_attention) {
    fused.attributes = find(run, OpKind::attention)->attributes;
  } else if (kind == OpKind::greedy_head) {
    fused.attributes.first_token = run.back().attributes.first_token;
  } else if (kind == OpKind::norm_mlp_up || kind == OpKind::expert_up) {
    fused.attributes.experts = run.front().attributes.experts;
    fused.attributes.activation = run.back().attributes.activation;
    fused.attributes.gated = run.back().kind == OpKind::activate_gated;
  }
  return fused;
}

}  // namespace

Plan deep_fusion(const Plan& plan, std::span<const Region> regions) {
  Plan fused = plan;
  fused.ops.clear();
  for (std::size_t begin = 0; begin < plan.ops.size();) {
    const Run run = run_at(plan, begin);
    const Rule* rule = among(regions, run.front().region) ? rule_for(run, plan) : nullptr;
    if (rule != nullptr) {
      fused.ops.push_back(fuse(run, rule->fused, plan));
    } else {
      fused.ops.insert(fused.ops.end(), run.begin(), run.end());
    }
    begin += run.size();
  }
  fused = without_unused_buffers(std::move(fused));
  verify(fused);
  return fused;
}

}  // namespace lamella
