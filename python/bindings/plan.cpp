// Plans for Python: tables to read and compare, and the rows of `lamella explain`.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "cpu/bind.h"
#include "memory/buffer_plan.h"
#include "memory/kv_layout.h"
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
  std::optional<DataType> kv_dtype;
  const std::vector<WeightFormat>& weight_formats;
  bool deep_fusion;
};

/// A verified plan for one uniform step shape.
Plan plan_for(const Unloaded& model, const StepShape& shape) {
  const bool encoder = model.spec.head.kind == HeadKind::hidden;
  Plan plan = build_plan(model.spec, {.dtype = model.dtype,
                                      .kv_dtype = model.kv_dtype,
                                      .weight_formats = model.weight_formats,
                                      .output = encoder ? PlanOutput::hidden : PlanOutput::greedy,
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
      .value("int32", DataType::i32)
      .value("int8", DataType::i8);

  nb::class_<StepShape>(m, "StepShape",
                        "The sizes of one step: tokens, sequences, rows, KV blocks and attended positions.")
      .def_static(
          "uniform", &StepShape::uniform, "sequences"_a, "new_tokens"_a, "context"_a,
          "`sequences` equal sequences that bring `new_tokens` each and end with `context` tokens in the cache.")
      .def_ro("tokens", &StepShape::tokens)
      .def_ro("sequences", &StepShape::sequences)
      .def_ro("rows", &StepShape::rows)
      .def_ro("kv_blocks", &StepShape::kv_blocks);

  nb::class_<Roofline>(m, "Roofline",
                       "Measured roofs of a device: bytes/s that it reads, and multiply-adds/s, counted as two.")
      .def(
          "__init__",
          [](Roofline* self, double bytes, double f32, double bf16, double int8) {
            new (self) Roofline{bytes, f32, bf16, int8};
          },
          "bytes_per_s"_a = 0.0, "f32_flops_per_s"_a = 0.0, "bf16_flops_per_s"_a = 0.0, "int8_ops_per_s"_a = 0.0,
          "Roofs of 0 leave roofline times out.")
      .def_ro("bytes_per_s", &Roofline::bytes_per_s)
      .def_ro("f32_flops_per_s", &Roofline::f32_flops_per_s)
      .def_ro("bf16_flops_per_s", &Roofline::bf16_flops_per_s)
      .def_ro("int8_ops_per_s", &Roofline::int8_ops_per_s);

  nb::class_<ExplainRow>(m, "ExplainRow", "One op of a plan with its cost for one step shape.")
      .def_ro("op", &ExplainRow::op)
      .def_ro("layer", &ExplainRow::layer)
      .def_ro("region", &ExplainRow::region)
      .def_ro("inputs", &ExplainRow::inputs)
      .def_ro("outputs", &ExplainRow::outputs)
      .def_ro("shape", &ExplainRow::shape)
      .def_ro("dtype", &ExplainRow::dtype)
      .def_ro("kernel", &ExplainRow::kernel)
      .def_ro("arithmetic", &ExplainRow::arithmetic)
      .def_ro("bytes_read", &ExplainRow::bytes_read)
      .def_ro("bytes_streamed", &ExplainRow::bytes_streamed, "Of bytes_read: weights and KV cache.")
      .def_ro("bytes_written", &ExplainRow::bytes_written)
      .def_ro("flops", &ExplainRow::flops)
      .def_ro("roofline_s", &ExplainRow::roofline_s)
      .def_ro("measured_s", &ExplainRow::measured_s);

  m.def(
      "explain_plan",
      [](const ModelSpec& spec, DataType dtype, const Formats& formats, bool fused, const StepShape& shape,
         const Roofline& roofline, std::optional<DataType> kv_cache_dtype) {
        const Plan plan = plan_for({spec, dtype, kv_cache_dtype, formats, fused}, shape);
        const cpu::KernelTable& kernels = cpu::kernel_table(cpu::default_kernel_set(), dtype);
        return explain_rows(plan, shape, roofline,
                            [&](std::size_t op) { return cpu::arithmetic(plan, plan.ops[op], kernels); }, {}, {});
      },
      "spec"_a, "dtype"_a, "weight_formats"_a, "deep_fusion"_a, "shape"_a, "roofline"_a,
      "kv_cache_dtype"_a = nb::none(),
      "Rows of the plan for a model that is not loaded: costs and roofline, no kernels and no measured times.");
  m.def(
      "kv_bytes_per_token",
      [](const ModelSpec& spec, DataType dtype, std::optional<DataType> kv_cache_dtype) {
        const DataType type = kv_cache_dtype.value_or(dtype);
        std::int64_t bytes = 0;
        for (const LayerSpec& layer : spec.layers)
          bytes += kv_token_bytes(type, layer.attention.kv_heads, layer.attention.head_dim);
        return bytes;
      },
      "spec"_a, "dtype"_a, "kv_cache_dtype"_a.none(), "Bytes of K and V that a token leaves in all layers' caches.");
  m.def(
      "plan_table",
      [](const ModelSpec& spec, DataType dtype, bool fused, const StepShape& shape) {
        return to_table(plan_for({spec, dtype, {}, {}, fused}, shape));
      },
      "spec"_a, "dtype"_a, "deep_fusion"_a, "shape"_a, "The plan, one op a line, with symbolic shapes.");
  m.def(
      "memory_table",
      [](const ModelSpec& spec, DataType dtype, bool fused, const StepShape& shape) {
        const Plan plan = plan_for({spec, dtype, {}, {}, fused}, shape);
        return to_table(plan, plan_buffers(plan));
      },
      "spec"_a, "dtype"_a, "deep_fusion"_a, "shape"_a, "Where each buffer of the plan lies in its one allocation.");
  m.def(
      "weight_bytes_per_step",
      [](const ModelSpec& spec, DataType dtype, const Formats& formats, const StepShape& shape) {
        return weight_bytes_per_step(plan_for({spec, dtype, {}, formats, false}, shape), shape);
      },
      "spec"_a, "dtype"_a, "weight_formats"_a, "shape"_a, "Bytes of weights that one step reads.");
}

}  // namespace lamella
