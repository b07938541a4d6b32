// A plan with its costs, row by row: what `lamella explain` prints.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "runtime/device.h"

namespace lamella {

/// One op of a plan for one step shape.
struct ExplainRow {
  std::string op, region, inputs, outputs, shape, dtype, kernel, arithmetic;
  std::int32_t layer = -1;
  std::int64_t bytes_read = 0, bytes_streamed = 0, bytes_written = 0, flops = 0;  // as in Cost
  std::optional<double> roofline_s;  // max(bytes / bandwidth, FLOPs / the arithmetic's peak), where measured
  std::optional<double> measured_s;
};

/// Rows for every op. `arithmetic` says what an op multiplies, by number; `kernels` names its kernel (empty: none
/// chosen); `seconds` holds measured times or is empty.
[[nodiscard]] std::vector<ExplainRow> explain_rows(const Plan& plan, const StepShape& shape, const Roofline& roofline,
                                                   const std::function<Arithmetic(std::size_t)>& arithmetic,
                                                   const std::function<std::string(std::size_t)>& kernels,
                                                   const std::vector<double>& seconds);

}  // namespace lamella
