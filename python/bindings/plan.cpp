// Plans for Python: tables to read and compare, and the rows of `lamella explain`.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "memory/buffer_plan.h"
#include "plan/build_plan.h"
#include "plan/cost.h"
#include "plan/passes/deep_fusion.h"
#include "plan/verify.h"
#include "runtime/explain.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

/// A model that is not loaded, as an engine would run it.
struct Unloaded {
  const ModelSpec& spec;
  DataType dtype;
  const std::vector<WeightFormat>& weight_formats;
  bool deep_fusion;
};

/// A verified plan for one uniform step shape.
Plan plan_for(const Unloaded& model, const StepShape& shape) {
  const bool encoder = model.spec.head.kind == HeadKind::hidden;
  Plan plan = build_plan(model.spec, {.dtype = model.dtype,
                                      .weight_formats = model.weight_formats,
                                      .output = encoder ? PlanOutput::hidden : PlanOutput::logits,
                                      .kv_pool_blocks = shape.kv_blocks * shape.sequences,
                                      .bounds = shape});
  verify(plan);
  return model.deep_fusion ? deep_fusion(plan) : plan;
}

using Formats = std::vector<WeightFormat>;

}  // namespace

void bind_plan(nb::module_& m) {
  nb::enum_<DataType>(m, "DataType")
      .value("float32", DataType::f32)
      .value("float16", DataType::f16)
      .value("bfloat16", DataType::bf16)
      .value("int32", DataType::i32);

  nb::class_<StepShape>(m, "StepShape",
                        "The sizes of one step: tokens, sequences, rows, KV blocks and attended positions.")
      .def_static(
          "uniform", &StepShape::uniform, "sequences"_a, "new_tokens"_a, "context"_a,
          "`sequences` equal sequences that bring `new_tokens` each and end with `context` tokens in the cache.")
      .def_ro("tokens", &StepShape::tokens)
      .def_ro("sequences", &StepShape::sequences)
      .def_ro("rows", &StepShape::rows)
      .def_ro("kv_blocks", &StepShape::kv_blocks);

  nb::class_<Roofline>(m, "Roofline", "Measured roofs of a device: bytes/s that it reads and fp32 FLOP/s.")
      .def(
          "__init__", [](Roofline* self, double bytes, double flops) { new (self) Roofline{bytes, flops}; },
          "bytes_per_s"_a = 0.0, "flops_per_s"_a = 0.0, "Roofs of 0 leave roofline times out.")
      .def_ro("bytes_per_s", &Roofline::bytes_per_s)
      .def_ro("flops_per_s", &Roofline::flops_per_s);

  nb::class_<ExplainRow>(m, "ExplainRow", "One op of a plan with its cost for one step shape.")
      .def_ro("op", &ExplainRow::op)
      .def_ro("layer", &ExplainRow::layer)
      .def_ro("region", &ExplainRow::region)
      .def_ro("inputs", &ExplainRow::inputs)
      .def_ro("outputs", &ExplainRow::outputs)
      .def_ro("shape", &ExplainRow::shape)
      .def_ro("dtype", &ExplainRow::dtype)
      .def_ro("kernel", &ExplainRow::kernel)
      .def_ro("bytes_read", &ExplainRow::bytes_read)
      .def_ro("bytes_written", &ExplainRow::bytes_written)
      .def_ro("flops", &ExplainRow::flops)
      .def_ro("roofline_s", &ExplainRow::roofline_s)
      .def_ro("measured_s", &ExplainRow::measured_s);

  m.def(
      "explain_plan",
      [](const ModelSpec& spec, DataType dtype, const Formats& formats, bool fused, const StepShape& shape,
         const Roofline& roofline) {
        return explain_rows(plan_for({spec, dtype, formats, fused}, shape), shape, roofline, {}, {});
      },
      "spec"_a, "dtype"_a, "weight_formats"_a, "deep_fusion"_a, "shape"_a, "roofline"_a,
      "Rows of the plan for a model that is not loaded: costs and roofline, no kernels and no measured times.");
  m.def(
      "plan_table",
      [](const ModelSpec& spec, DataType dtype, bool fused, const StepShape& shape) {
        return to_table(plan_for({spec, dtype, {}, fused}, shape));
      },
      "spec"_a, "dtype"_a, "deep_fusion"_a, "shape"_a, "The plan, one op a line, with symbolic shapes.");
  m.def(
      "memory_table",
      [](const ModelSpec& spec, DataType dtype, bool fused, const StepShape& shape) {
        const Plan plan = plan_for({spec, dtype, {}, fused}, shape);
        return to_table(plan, plan_buffers(plan));
      },
      "spec"_a, "dtype"_a, "deep_fusion"_a, "shape"_a, "Where each buffer of the plan lies in its one allocation.");
  m.def(
      "weight_bytes_per_step",
      [](const ModelSpec& spec, DataType dtype, const Formats& formats, const StepShape& shape) {
        return weight_bytes_per_step(plan_for({spec, dtype, formats, false}, shape), shape);
      },
      "spec"_a, "dtype"_a, "weight_formats"_a, "shape"_a, "Bytes of weights that one step reads.");
}

}  // namespace lamella
