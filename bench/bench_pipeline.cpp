// The engine's own loop over stages that only take time: the schedules of pipelines beside their formulas.
//   bench_pipeline [stages [sequences [prompt tokens [new tokens [fixed us [us a token]]]]]]
// Default: 4 stages, 24 sequences (the batch of the paper's figure 13) of 128 prompt tokens and 16 new ones; a stage's step takes
// 4000 us and 40 us a token. For each schedule and count of micro-batches the batch runs four times, the first of which teaches the
// loop what steps take; printed are the medians of the others, with least and most: until all prompts are done and until all
// is done, and how many times as long as the schedule's simulation with these very delays. "chosen" is the hybrid schedule with counts
// of its own choice.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "bench_arguments.h"
#include "runtime/client.h"
#include "runtime/pipeline_schedule.h"
#include "runtime/request_loop.h"

namespace {

using namespace lamella;

struct Workload {
  int stages;
  std::int64_t sequences, prompt_tokens, new_tokens;
  StepTimes times;
};

/// A stage whose step takes what a stage's step of so many tokens takes, and finds token 0 for every row.
class SleepingStage final : public Executor {
 public:
  explicit SleepingStage(const Workload& load) : load_(load) {}

  [[nodiscard]] const Plan& plan() const noexcept override { return plan_; }
  [[nodiscard]] std::string kernel_name(std::size_t) const override { return "sleep"; }
  [[nodiscard]] Arithmetic arithmetic(std::size_t) const override { return Arithmetic::f32; }
  std::vector<double> run_timed(const StepInput&) override { return {}; }
  std::span<const float> run(const StepInput& step) override {
    const double end_s = now_seconds() + load_.times.of(static_cast<double>(step.shape().tokens));
    constexpr double late_s = 150e-6;  // by which the system may wake us late; we watch the clock for that long
    std::this_thread::sleep_for(std::chrono::duration<double>(end_s - now_seconds() - late_s));
    while (now_seconds() < end_s) std::this_thread::yield();
    output_.assign(2 * static_cast<std::size_t>(step.shape().rows), 0.0F);
    return output_;
  }

 private:
  Workload load_;
  Plan plan_;
  std::vector<float> output_;
};

struct Times {
  double prompt_s, total_s;
};

/// One batch through the loop.
Times run_batch(const Workload& load, RequestLoop& loop, Client& client) {
  const Request request{.prompt = std::vector<std::int32_t>(static_cast<std::size_t>(load.prompt_tokens), 1),
                        .sampling = {.max_tokens = load.new_tokens}};
  loop.record_runs(true);
  static_cast<void>(client.submit(std::vector<Request>(static_cast<std::size_t>(load.sequences), request)));
  while (client.open() > 0) static_cast<void>(client.wait(1.0, Hear::ends));
  const std::vector<StageRun> runs = loop.runs();
  double begin_s = runs.front().begin_s, prompt_s = 0.0, total_s = 0.0;
  for (const StageRun& run : runs) begin_s = std::min(begin_s, run.begin_s);
  for (const StageRun& run : runs) {
    if (run.tokens > run.sequences) prompt_s = std::max(prompt_s, run.end_s - begin_s);
    total_s = std::max(total_s, run.end_s - begin_s);
  }
  return {prompt_s, total_s};
}

void measure(const char* name, const Workload& load, const PipelineOptions& options) {
  std::vector<SleepingStage> executors(static_cast<std::size_t>(load.stages), SleepingStage(load));
  std::vector<StageExecutors> stages;
  stages.reserve(executors.size());
  for (SleepingStage& executor : executors) stages.push_back({.logits = &executor, .greedy = &executor});
  const std::int64_t tokens = load.prompt_tokens + load.new_tokens,
                     blocks = load.sequences * KvBlockPool::blocks_for(tokens);
  KvBlockPool pool(blocks);
  ThreadTeam team(1);
  const auto loop = std::make_shared<RequestLoop>(
      LoopOptions{.limits = {.max_num_seqs = load.sequences,
                             .max_num_batched_tokens = load.sequences * load.prompt_tokens,
                             .max_rows = load.sequences,
                             .max_blocks_per_sequence = KvBlockPool::blocks_for(tokens),
                             .reuse_prefixes = false},
                  .vocabulary = 2,
                  .steps_in_flight = most_micro_batches,
                  .clock = now_seconds,
                  .pipeline = options},
      stages, team, pool, [](std::span<const std::int32_t>) {});
  loop->start();
  Client client(loop, {.family = "sleep", .vocabulary = 2, .max_model_len = tokens, .kv_blocks = blocks});
  std::vector<double> prompts, totals;
  for (int round = 0; round < 4; ++round) {
    const Times times = run_batch(load, *loop, client);
    if (round == 0) continue;
    prompts.push_back(times.prompt_s);
    totals.push_back(times.total_s);
  }
  const MicroBatches counts = [&]() -> MicroBatches {
    if (options.prompt_micro_batches > 0)
      return {options.prompt_micro_batches,
              options.generation_micro_batches > 0 ? options.generation_micro_batches : options.prompt_micro_batches};
    return choose_micro_batches(load.stages, load.sequences * load.prompt_tokens, load.sequences, load.times, 0.0);
  }();
  loop->close();
  const auto share = [](std::int64_t whole, int parts) { return static_cast<double>(whole) / parts; };
  const ScheduleFigures formula = figures_of(
      schedule_batch({.stages = load.stages,
                      .schedule = options.schedule,
                      .micro_batches = counts,
                      .new_tokens = static_cast<int>(load.new_tokens),
                      .prompt_s = load.times.of(share(load.sequences * load.prompt_tokens, counts.prompt)),
                      .generation_s = load.times.of(share(load.sequences, counts.generation))}),
      load.stages);
  std::ranges::sort(prompts);
  std::ranges::sort(totals);
  std::printf("%-9s %3d %3d   %7.1f (%.1f to %.1f) %6.3f   %8.1f (%.1f to %.1f) %6.3f   %5.1f %%\n", name, counts.prompt,
              counts.generation, prompts[1] * 1e3, prompts[0] * 1e3, prompts[2] * 1e3, prompts[1] / formula.prompt_s,
              totals[1] * 1e3, totals[0] * 1e3, totals[2] * 1e3, totals[1] / formula.total_s,
              formula.bubble_fraction * 100.0);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  const bench::Arguments arguments{argc, argv};
  const Workload load{
      .stages = static_cast<int>(arguments.number(1, 4)),
      .sequences = arguments.number(2, 24),
      .prompt_tokens = arguments.number(3, 128),
      .new_tokens = arguments.number(4, 16),
      .times = {.fixed_s = static_cast<double>(arguments.number(5, 4000)) * 1e-6,
                .token_s = static_cast<double>(arguments.number(6, 40)) * 1e-6}};
  std::printf("%d stages, %lld sequences of %lld prompt tokens and %lld new ones; a step takes %.1f ms + %.3f ms a token\n\n",
              load.stages, static_cast<long long>(load.sequences), static_cast<long long>(load.prompt_tokens),
              static_cast<long long>(load.new_tokens), load.times.fixed_s * 1e3, load.times.token_s * 1e3);
  std::printf("schedule  micro-    prompts done, ms        of the    all done, ms               of the    bubbles by\n"
              "          batches                           schedule                             schedule  schedule\n");
  const int most = 4 * load.stages;
  for (int count = load.stages; count <= std::min<int>(most, most_micro_batches); count *= 2)
    measure("training", load, {.schedule = PipelineSchedule::training, .prompt_micro_batches = count});
  for (int count = load.stages; count <= std::min<int>(most, most_micro_batches); count *= 2)
    measure("single", load, {.schedule = PipelineSchedule::single, .prompt_micro_batches = count});
  for (int count = load.stages; count <= std::min<int>(most, most_micro_batches); count *= 2)
    measure("hybrid", load, {.prompt_micro_batches = count, .generation_micro_batches = load.stages});
  measure("chosen", load, {});
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_pipeline: %s\n", error.what());
  return 2;
}
