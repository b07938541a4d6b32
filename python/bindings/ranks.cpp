// Ranks for Python: who shares what, pipelines' schedules as objects, and what stages really did.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "comm/topology.h"
#include "model/shard.h"
#include "runtime/pipeline_schedule.h"
#include "runtime/step_runner.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {

void bind_ranks(nb::module_& m) {
  nb::class_<StageRun>(m, "StageRun", "A step's time in a pipeline's stage, in seconds of the monotonic clock.")
      .def_ro("stage", &StageRun::stage)
      .def_ro("step", &StageRun::step)
      .def_ro("begin_s", &StageRun::begin_s)
      .def_ro("end_s", &StageRun::end_s)
      .def_ro("sequences", &StageRun::sequences)
      .def_ro("tokens", &StageRun::tokens);

  nb::class_<ScheduledRun>(m, "ScheduledRun", "A micro-batch in a stage; token 0 is the prompt's.")
      .def_ro("stage", &ScheduledRun::stage)
      .def_ro("micro_batch", &ScheduledRun::micro_batch)
      .def_ro("token", &ScheduledRun::token)
      .def_ro("begin_s", &ScheduledRun::begin_s)
      .def_ro("end_s", &ScheduledRun::end_s);

  nb::class_<ScheduleFigures>(m, "ScheduleFigures")
      .def_ro("prompt_s", &ScheduleFigures::prompt_s, "Until every sequence has its first token.")
      .def_ro("total_s", &ScheduleFigures::total_s)
      .def_ro("bubble_fraction", &ScheduleFigures::bubble_fraction,
              "Of the time of all stages until the end: how much they had nothing to do.");

  nb::class_<BatchShape>(m, "BatchSchedule", "What a pipeline does with a batch that begins together.")
      .def(
          "__init__",
          [](BatchShape* self, int stages, const std::string& schedule, int prompt_micro_batches,
             int generation_micro_batches, int new_tokens, double prompt_s, double generation_s) {
            const BatchShape batch{.stages = stages,
                                   .schedule = pipeline_schedule_named(schedule),
                                   .micro_batches = {prompt_micro_batches, generation_micro_batches},
                                   .new_tokens = new_tokens,
                                   .prompt_s = prompt_s,
                                   .generation_s = generation_s};
            static_cast<void>(schedule_batch(batch));  // refuses sizes outside their range
            new (self) BatchShape(batch);
          },
          nb::kw_only(), "stages"_a, "schedule"_a = "hybrid", "prompt_micro_batches"_a, "generation_micro_batches"_a,
          "new_tokens"_a, "prompt_s"_a = 1.0, "generation_s"_a = 1.0,
          "Seconds are those of a micro-batch in one stage; 1 and 1 are the ticks of the paper's figures.")
      .def_ro("stages", &BatchShape::stages)
      .def_prop_ro("prompt_micro_batches", [](const BatchShape& batch) { return batch.micro_batches.prompt; })
      .def_prop_ro("generation_micro_batches", [](const BatchShape& batch) { return batch.micro_batches.generation; })
      .def_ro("new_tokens", &BatchShape::new_tokens)
      .def_ro("prompt_s", &BatchShape::prompt_s)
      .def_ro("generation_s", &BatchShape::generation_s)
      .def("runs", &schedule_batch, "In order of stage, then time.")
      .def("figures", [](const BatchShape& batch) { return figures_of(schedule_batch(batch), batch.stages); })
      .def("formula_s", &formula_s, "Seconds until the end by the schedule's formula.")
      .def("grid", &schedule_grid, "columns"_a = 120, "A line a stage, a column a tick.");

  m.def(
      "topology_table",
      [](int tensor_parallel_size, int pipeline_parallel_size) {
        const comm::ParallelSizes sizes{.tensor = tensor_parallel_size, .pipeline = pipeline_parallel_size};
        comm::validate(sizes);
        return comm::to_table(comm::Topology(sizes));
      },
      "tensor_parallel_size"_a, "pipeline_parallel_size"_a, "A rank a line, with its number in each group.");
  m.def(
      "rank_groups",
      [](int tensor_parallel_size, int pipeline_parallel_size) {
        const comm::ParallelSizes sizes{.tensor = tensor_parallel_size, .pipeline = pipeline_parallel_size};
        comm::validate(sizes);
        const comm::Topology topology(sizes);
        std::vector<std::pair<int, int>> ranks;
        ranks.reserve(static_cast<std::size_t>(topology.ranks()));
        for (int rank = 0; rank < topology.ranks(); ++rank)
          ranks.emplace_back(topology.index_in(comm::GroupKind::tensor, rank),
                             topology.index_in(comm::GroupKind::pipeline, rank));
        return ranks;
      },
      "tensor_parallel_size"_a, "pipeline_parallel_size"_a, "Of each rank its (tensor part, pipeline stage).");
  m.def(
      "require_layout",
      [](const ModelSpec& spec, int tensor_parallel_size, int pipeline_parallel_size) {
        comm::validate({.tensor = tensor_parallel_size, .pipeline = pipeline_parallel_size});
        require_shards(spec, tensor_parallel_size);
        require_stages(spec, pipeline_parallel_size);
      },
      "spec"_a, "tensor_parallel_size"_a, "pipeline_parallel_size"_a,
      "Refuses ranks that the model cannot be shared by, naming the nearest that can.");
}

}  // namespace lamella
