#include "runtime/explain.h"

#include <algorithm>

#include "base/check.h"
#include "plan/cost.h"

namespace lamella {
namespace {

std::string names(const Plan& plan, const std::vector<BufferId>& ids) {
  std::string text;
  for (const BufferId id : ids) text += concat(text.empty() ? "" : ", ", plan.buffer(id).name);
  return text;
}

std::optional<double> roofline_seconds(const Cost& cost, const Roofline& roofline, Arithmetic arithmetic) {
  const double peak = roofline.peak(arithmetic);
  if (roofline.bytes_per_s <= 0.0 || peak <= 0.0) return std::nullopt;
  return std::max(static_cast<double>(cost.bytes_read + cost.bytes_written) / roofline.bytes_per_s,
                  static_cast<double>(cost.flops) / peak);
}

}  // namespace

std::vector<ExplainRow> explain_rows(const Plan& plan, const StepShape& shape, const Roofline& roofline,
                                     const std::function<Arithmetic(std::size_t)>& arithmetic,
                                     const std::function<std::string(std::size_t)>& kernels,
                                     const std::vector<double>& seconds) {
  std::vector<ExplainRow> rows;
  for (std::size_t i = 0; i < plan.ops.size(); ++i) {
    const Op& op = plan.ops[i];
    const Cost price = cost(plan, op, shape);
    const Buffer& result = plan.buffer(op.outputs.empty() ? op.inputs.front() : op.outputs.front());  // what it sends
    rows.push_back({.op = std::string(to_string(op.kind)),
                    .region = std::string(to_string(op.region)),
                    .inputs = names(plan, op.inputs),
                    .outputs = names(plan, op.outputs),
                    .shape = shape_text(result, shape),
                    .dtype = std::string(to_string(result.type)),
                    .kernel = kernels ? kernels(i) : "",
                    .arithmetic = to_string(arithmetic(i)),
                    .layer = op.layer,
                    .bytes_read = price.bytes_read,
                    .bytes_streamed = price.bytes_streamed,
                    .bytes_written = price.bytes_written,
                    .flops = price.flops,
                    .roofline_s = roofline_seconds(price, roofline, arithmetic(i)),
                    .measured_s = seconds.empty() ? std::nullopt : std::optional(seconds[i])});
  }
  return rows;
}

}  // namespace lamella
