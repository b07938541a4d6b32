// Which stage of a pipeline runs what, and when: the grid of the paper's figures 2 and 3, for a batch that begins together.
#pragma once

#include <string>
#include <vector>

#include "runtime/micro_batches.h"

namespace lamella {

/// A batch: its prompts as micro_batches.prompt steps, then for each further token of its sequences micro_batches.generation
/// steps, each of which takes so long in a stage.
struct BatchShape {
  int stages = 1;
  PipelineSchedule schedule = PipelineSchedule::hybrid;  // with the others both counts are the prompt's
  MicroBatches micro_batches = {};
  int new_tokens = 1;  // of each sequence; the first is the prompt's
  double prompt_s = 1.0, generation_s = 1.0;  // of a micro-batch in one stage; ticks of the paper's figures
};

/// A micro-batch in a stage.
struct ScheduledRun {
  int stage = 0, micro_batch = 0;
  int token = 0;  // that comes of it: 0 is the prompt's
  double begin_s = 0.0, end_s = 0.0;
};

/// What a pipeline does with the batch: stages take micro-batches in the order in which they became ready. A generation's
/// micro-batch holds an equal share of the sequences, and is ready when the prompts of all of them are done; then, with each
/// token. In order of stage, then time. Errors: invalid_argument for sizes below 1, above most_micro_batches or a million runs.
[[nodiscard]] std::vector<ScheduledRun> schedule_batch(const BatchShape& batch);

struct ScheduleFigures {
  double prompt_s = 0.0;  // until every sequence has its first token
  double total_s = 0.0;
  double bubble_fraction = 0.0;  // of the time of all stages until the end: how much they had nothing to do
};
/// Of runs, scheduled or measured, that begin at 0.
[[nodiscard]] ScheduleFigures figures_of(const std::vector<ScheduledRun>& runs, int stages);

/// Seconds until the end, by the formulas of the schedules with p = prompt_s, g = generation_s, S stages, m and n micro-batches and t
/// tokens: (m + S - 1) (p + (t - 1) g) where rounds end before the next begins; otherwise, for p = g, m + S - 1 + (t - 1) max(n, S)
/// ticks, in which a bubble is paid once. The latter holds where generation can follow the prompts without a gap, m >= S.
[[nodiscard]] double formula_s(const BatchShape& batch);

/// A line a stage, a column for each time that the shorter kind of step takes: "P2" is the prompt's third micro-batch, "B1" the
/// second token of generation's second, "." a bubble. At most `columns` of them.
[[nodiscard]] std::string schedule_grid(const BatchShape& batch, int columns);

}  // namespace lamella
