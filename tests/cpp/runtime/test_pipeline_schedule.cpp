#include "runtime/pipeline_schedule.h"

#include <gtest/gtest.h>

#include <map>

#include "lamella/error.h"

namespace lamella {
namespace {

TEST(PipelineSchedule, PrintsThePapersFigureTwo) {  // four sequences, four stages, three tokens
  BatchShape batch{.stages = 4, .micro_batches = {4, 4}, .new_tokens = 3};
  EXPECT_EQ(schedule_grid(batch, 80),
            "stage 0  P0 P1 P2 P3 A1 B1 C1 D1 A2 B2 C2 D2 .  .  .\n"
            "stage 1  .  P0 P1 P2 P3 A1 B1 C1 D1 A2 B2 C2 D2 .  .\n"
            "stage 2  .  .  P0 P1 P2 P3 A1 B1 C1 D1 A2 B2 C2 D2 .\n"
            "stage 3  .  .  .  P0 P1 P2 P3 A1 B1 C1 D1 A2 B2 C2 D2\n");
  batch.schedule = PipelineSchedule::training;
  batch.new_tokens = 2;
  EXPECT_EQ(schedule_grid(batch, 80),
            "stage 0  P0 P1 P2 P3 .  .  .  A1 B1 C1 D1 .  .  .\n"
            "stage 1  .  P0 P1 P2 P3 .  .  .  A1 B1 C1 D1 .  .\n"
            "stage 2  .  .  P0 P1 P2 P3 .  .  .  A1 B1 C1 D1 .\n"
            "stage 3  .  .  .  P0 P1 P2 P3 .  .  .  A1 B1 C1 D1\n");
}

TEST(PipelineSchedule, PrintsThePapersFigureThree) {  // more micro-batches of prompts, fewer of generation
  const BatchShape batch{.stages = 2, .micro_batches = {4, 2}, .new_tokens = 3, .prompt_s = 2.0};
  EXPECT_EQ(schedule_grid(batch, 80),
            "stage 0  P0 -  P1 -  P2 -  P3 -  A1 .  B1 A2 B2 .\n"
            "stage 1  .  .  P0 -  P1 -  P2 -  P3 -  A1 B1 A2 B2\n");
  EXPECT_EQ(schedule_grid(batch, 3), "stage 0  P0 -  P1 ...\nstage 1  .  .  P0 ...\n");
}

TEST(PipelineSchedule, TakesAsLongAsTheFormulasSay) {
  for (int stages = 1; stages <= 6; ++stages) {
    for (int m = stages; m <= most_micro_batches; ++m) {
      for (int n = 1; n <= m; ++n) {
        for (const int tokens : {1, 2, 9}) {
          for (const PipelineSchedule schedule :
               {PipelineSchedule::hybrid, PipelineSchedule::single, PipelineSchedule::training}) {
            const BatchShape batch{
                .stages = stages, .schedule = schedule, .micro_batches = {m, n}, .new_tokens = tokens};
            const ScheduleFigures figures = figures_of(schedule_batch(batch), stages);
            EXPECT_DOUBLE_EQ(figures.total_s, formula_s(batch))
                << to_string(schedule) << " of " << stages << " stages, " << m << " and " << n << ", " << tokens;
            EXPECT_DOUBLE_EQ(figures.prompt_s, m + stages - 1);
          }
        }
      }
    }
  }
}

TEST(PipelineSchedule, BubblesArePaidOnce) {
  const auto bubble = [](PipelineSchedule schedule, int tokens) {
    return figures_of(
               schedule_batch({.stages = 4, .schedule = schedule, .micro_batches = {4, 4}, .new_tokens = tokens}), 4)
        .bubble_fraction;
  };
  EXPECT_NEAR(bubble(PipelineSchedule::training, 1), 3.0 / 7.0, 1e-12);
  EXPECT_NEAR(bubble(PipelineSchedule::training, 50), 3.0 / 7.0, 1e-12);
  EXPECT_NEAR(bubble(PipelineSchedule::hybrid, 50), 3.0 / 203.0, 1e-12);
}

TEST(PipelineSchedule, AStageRunsOneThingAtATimeAndInOrder) {
  const BatchShape batch{.stages = 3, .micro_batches = {7, 3}, .new_tokens = 6, .prompt_s = 2.5, .generation_s = 0.75};
  std::map<int, double> free;
  std::map<std::pair<int, int>, std::pair<int, double>> passed;  // of (micro-batch, token): stages, and until when
  for (const ScheduledRun& run : schedule_batch(batch)) {
    EXPECT_GE(run.begin_s, free[run.stage]);
    free[run.stage] = run.end_s;
    auto& [stages, until] = passed[{run.micro_batch, run.token}];
    EXPECT_EQ(stages++, run.stage);
    EXPECT_GE(run.begin_s, until);
    until = run.end_s;
  }
  EXPECT_EQ(passed.size(), 7U + 5U * 3U);
}

TEST(PipelineSchedule, SizesOutsideTheirRangeAreRefused) {
  EXPECT_THROW(static_cast<void>(schedule_batch({.stages = 0})), Error);
  EXPECT_THROW(static_cast<void>(schedule_batch({.micro_batches = {17, 1}})), Error);
  EXPECT_THROW(static_cast<void>(schedule_batch({.new_tokens = 0})), Error);
  EXPECT_THROW(static_cast<void>(schedule_batch({.stages = 1000, .new_tokens = 1001})), Error);
}

}  // namespace
}  // namespace lamella
