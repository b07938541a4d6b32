#include "plan/cost.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "memory/kv_layout.h"
#include "memory/panels.h"

namespace lamella {
namespace {

/// A count that refuses to wrap: shapes come from callers, and a step of theirs may cost more than 2^63.
class Count {
 public:
  Count(std::int64_t value) : value_(value) {}  // NOLINT(google-explicit-constructor): reads as arithmetic
  [[nodiscard]] std::int64_t value() const noexcept { return value_; }
  friend Count operator*(Count a, Count b) {
    return checked_multiply(a.value_, b.value_, "the cost of the step", ErrorCode::invalid_argument);
  }
  friend Count operator+(Count a, Count b) {
    return checked_add(a.value_, b.value_, "the cost of the step", ErrorCode::invalid_argument);
  }

 private:
  std::int64_t value_;
};

/// Whether the op's weights are experts', of which a step touches some.
bool is_of_experts(const Op& op) noexcept { return op.kind == OpKind::expert_linear || op.kind == OpKind::expert_up; }

/// The part of a mixture's experts that tokens touch, as cost.h says.
double touched(const ExpertsSpec& experts, std::int64_t tokens) {
  return 1.0 - std::pow(1.0 - double(experts.top_k) / experts.count, double(tokens));
}

/// Weights that the op reads whole, plus the rows that an embedding gathers.
std::int64_t weight_traffic(const Plan& plan, const Op& op, const StepShape& shape) {
  Count bytes = 0;
  for (const WeightIndex index : op.weights) {
    const WeightDeclaration& weight = plan.weight(index);
    bytes = bytes + (op.kind == OpKind::embed ? Count(shape.tokens) * row_bytes(weight) : Count(weight_bytes(weight)));
  }
  if (!is_of_experts(op)) return bytes.value();
  return std::llround(static_cast<double>(bytes.value()) * touched(*op.attributes.experts, shape.tokens));
}

std::int64_t matrix_flops(const Plan& plan, const Op& op, std::int64_t rows) {
  Count flops = 0;
  for (const WeightIndex index : op.weights)
    if (!is_vector(plan.weight(index).id.slot))
      flops = flops + Count(2) * rows * plan.weight(index).rows * plan.weight(index).columns;
  return flops.value();
}

// With a window, what a step's sums allow to be said: exact where every sequence has outgrown the window, or none has;
// otherwise an upper bound.

std::int64_t attended(const StepShape& shape, std::int32_t window) {
  return window == 0 ? shape.attended : std::min(shape.attended, (Count(shape.tokens) * window).value());
}

/// A sequence's first token of the step sees window - 1 tokens before it.
std::int64_t kv_tokens_read(const StepShape& shape, std::int32_t window) {
  if (window == 0) return shape.kv_tokens;
  return std::min(shape.kv_tokens, (Count(shape.sequences) * (window - 1) + shape.tokens).value());
}

/// K and V of one token in the op's KV state, as the cache stores them; 0 for ops without one.
std::int64_t kv_bytes_a_token(const Plan& plan, const Op& op) {
  for (const std::vector<BufferId>* operands : {&op.inputs, &op.outputs})
    for (const BufferId id : *operands) {
      const Buffer& buffer = plan.buffer(id);
      if (buffer.kind != BufferKind::state) continue;
      return kv_token_bytes(buffer.type, op.attributes.kv_heads, op.attributes.head_dim);
    }
  return 0;
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
  Count bytes = 0;
  for (const Op& op : plan.ops) bytes = bytes + weight_traffic(plan, op, shape);
  return bytes.value();
}

Cost cost(const Plan& plan, const Op& op, const StepShape& shape) {
  Count streamed = weight_traffic(plan, op, shape), read = 0, written = 0, flops = 0;
  for (const BufferId id : op.inputs)
    if (plan.buffer(id).kind != BufferKind::state) read = read + byte_count(plan.buffer(id), shape);
  for (const BufferId id : op.outputs)
    if (plan.buffer(id).kind != BufferKind::state) written = written + byte_count(plan.buffer(id), shape);

  const OpAttributes& a = op.attributes;
  const Count kv_row_bytes = kv_bytes_a_token(plan, op);
  switch (op.kind) {
    case OpKind::attention:
    case OpKind::layout_attention:
      streamed = streamed + kv_tokens_read(shape, a.window) * kv_row_bytes;
      flops = Count(4) * attended(shape, a.window) * a.heads * a.head_dim;  // q.k and p.v
      break;
    case OpKind::kv_write:
    case OpKind::norm_qkv:
      written = written + shape.tokens * kv_row_bytes;
      flops = matrix_flops(plan, op, shape.tokens);
      break;
    case OpKind::linear:
    case OpKind::norm_mlp_up:
    case OpKind::output_residual:
    case OpKind::greedy_head:
      flops = matrix_flops(plan, op, evaluate(plan.buffer(op.inputs.front()).shape.front(), shape));
      break;
    case OpKind::norm_route: flops = matrix_flops(plan, op, shape.tokens); break;
    case OpKind::expert_linear:
    case OpKind::expert_up:  // a row meets one expert
      flops = matrix_flops(plan, op, evaluate(plan.buffer(op.inputs.front()).shape.front(), shape)) /
              op.attributes.experts->count;
      break;
    case OpKind::embed:
    case OpKind::receive:
    case OpKind::send: break;
    case OpKind::best_token: flops = element_count(plan.buffer(op.inputs.front()), shape); break;
    case OpKind::gather_rows:  // reads the gathered rows, not all of x
      read = read + (byte_count(plan.buffer(op.outputs[0]), shape) - byte_count(plan.buffer(op.inputs[0]), shape));
      break;
    default: flops = Count(elementwise_flops) * element_count(plan.buffer(op.outputs.front()), shape);
  }
  return {.bytes_read = (streamed + read).value(),
          .bytes_streamed = streamed.value(),
          .bytes_written = written.value(),
          .flops = flops.value()};
}

}  // namespace lamella
