#include "plan/cost.h"

#include "base/check.h"
#include "memory/panels.h"

namespace lamella {
namespace {

/// Weights that the op reads whole, plus the rows that an embedding gathers.
std::int64_t weight_traffic(const Plan& plan, const Op& op, const StepShape& shape) {
  std::int64_t bytes = 0;
  for (const WeightIndex index : op.weights) {
    const WeightDeclaration& weight = plan.weight(index);
    bytes += op.kind == OpKind::embed ? shape.tokens * row_bytes(weight) : weight_bytes(weight);
  }
  return bytes;
}

std::int64_t matrix_flops(const Plan& plan, const Op& op, std::int64_t rows) {
  std::int64_t flops = 0;
  for (const WeightIndex index : op.weights)
    if (!is_vector(plan.weight(index).id.slot))
      flops += 2 * rows * plan.weight(index).rows * plan.weight(index).columns;
  return flops;
}

/// FLOPs of a norm, an activation or an addition are counted as this many an element; they never bound a step.
constexpr std::int64_t elementwise_flops = 4;

}  // namespace

DataType dtype_of(const Plan& plan) {
  check(!plan.ops.empty() && !plan.ops.front().outputs.empty(), "an empty plan has no dtype");
  return plan.buffer(plan.ops.front().outputs.front()).type;
}

std::int64_t weight_bytes(const WeightDeclaration& weight) {
  if (is_vector(weight.id.slot)) return weight.columns * std::int64_t(sizeof(float));
  return PanelLayout(weight.format, weight.rows, weight.columns).total_bytes();
}

std::int64_t row_bytes(const WeightDeclaration& weight) {
  return PanelLayout(weight.format, weight.rows, weight.columns).panel_bytes(1) / tile_outputs;
}

std::int64_t weight_bytes_per_step(const Plan& plan, const StepShape& shape) {
  std::int64_t bytes = 0;
  for (const Op& op : plan.ops) bytes += weight_traffic(plan, op, shape);
  return bytes;
}

Cost cost(const Plan& plan, const Op& op, const StepShape& shape) {
  Cost total{.bytes_read = weight_traffic(plan, op, shape)};
  for (const BufferId id : op.inputs)
    if (plan.buffer(id).kind != BufferKind::state) total.bytes_read += byte_count(plan.buffer(id), shape);
  for (const BufferId id : op.outputs)
    if (plan.buffer(id).kind != BufferKind::state) total.bytes_written += byte_count(plan.buffer(id), shape);

  const OpAttributes& a = op.attributes;
  const std::int64_t kv_row_bytes = 2 * std::int64_t{a.kv_heads} * a.head_dim * std::int64_t(size_of(dtype_of(plan)));
  switch (op.kind) {
    case OpKind::attention:
    case OpKind::layout_attention:
      total.bytes_read += shape.kv_tokens * kv_row_bytes;
      total.flops = 4 * shape.attended * a.heads * a.head_dim;  // q.k and p.v
      break;
    case OpKind::kv_write:
    case OpKind::norm_qkv:
      total.bytes_written += shape.tokens * kv_row_bytes;
      total.flops = matrix_flops(plan, op, shape.tokens);
      break;
    case OpKind::linear:
    case OpKind::norm_mlp_up:
    case OpKind::output_residual:
      total.flops = matrix_flops(plan, op, evaluate(plan.buffer(op.inputs.front()).shape.front(), shape));
      break;
    case OpKind::embed: break;
    case OpKind::gather_rows:  // reads the gathered rows, not all of x
      total.bytes_read += byte_count(plan.buffer(op.outputs[0]), shape) - byte_count(plan.buffer(op.inputs[0]), shape);
      break;
    default: total.flops = elementwise_flops * element_count(plan.buffer(op.outputs.front()), shape);
  }
  return total;
}

}  // namespace lamella
