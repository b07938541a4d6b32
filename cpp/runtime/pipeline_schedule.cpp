#include "runtime/pipeline_schedule.h"

#include <algorithm>
#include <cmath>
#include <queue>

#include "base/check.h"

namespace lamella {
namespace {

constexpr std::int64_t most_runs = 1'000'000;

/// Both counts of a schedule that has one are the prompt's.
BatchShape checked(BatchShape batch) {
  if (batch.schedule != PipelineSchedule::hybrid) batch.micro_batches.generation = batch.micro_batches.prompt;
  const auto within = [](std::string_view what, std::int64_t value, std::int64_t most) {
    if (value < 1 || value > most)
      throw Error(ErrorCode::invalid_argument, concat(what, " is ", value, "; expected 1 to ", most));
  };
  within("pipeline_parallel_size", batch.stages, 65'536);
  within("prompt_micro_batches", batch.micro_batches.prompt, most_micro_batches);
  within("generation_micro_batches", batch.micro_batches.generation, most_micro_batches);
  within("new_tokens", batch.new_tokens, most_runs);
  const std::int64_t runs =
      std::int64_t{batch.stages} *
      (batch.micro_batches.prompt + std::int64_t{batch.new_tokens} * batch.micro_batches.generation);
  within("the number of a schedule's runs", runs, most_runs);
  return batch;
}

/// A micro-batch before the first stage.
struct Ready {
  double at_s;
  int token, micro_batch;

  bool operator>(const Ready& other) const noexcept {
    if (at_s != other.at_s) return at_s > other.at_s;
    return token != other.token ? token > other.token : micro_batch > other.micro_batch;
  }
};

class Simulation {
 public:
  explicit Simulation(const BatchShape& batch)
      : batch_(batch),
        free_s_(static_cast<std::size_t>(batch.stages), 0.0),
        prompts_done_s_(static_cast<std::size_t>(batch.micro_batches.prompt), 0.0) {}

  std::vector<ScheduledRun> operator()() {
    for (int m = 0; m < batch_.micro_batches.prompt; ++m) ready_.push({0.0, 0, m});
    while (!ready_.empty()) {
      const Ready next = ready_.top();
      ready_.pop();
      finish(next, pass(next));
    }
    std::ranges::stable_sort(runs_, {}, &ScheduledRun::begin_s);
    std::ranges::stable_sort(runs_, {}, &ScheduledRun::stage);
    return std::move(runs_);
  }

 private:
  /// Through all stages; when it leaves the last.
  double pass(const Ready& micro_batch) {
    const double step_s = micro_batch.token == 0 ? batch_.prompt_s : batch_.generation_s;
    double at_s = micro_batch.at_s;
    for (int stage = 0; stage < batch_.stages; ++stage) {
      double& free_s = free_s_[static_cast<std::size_t>(stage)];
      const double begin_s = std::max(at_s, free_s);
      free_s = at_s = begin_s + step_s;
      runs_.push_back({stage, micro_batch.micro_batch, micro_batch.token, begin_s, at_s});
    }
    return at_s;
  }

  void finish(const Ready& done, double at_s) {
    round_end_s_ = std::max(round_end_s_, at_s);
    const int of_round = done.token == 0 ? batch_.micro_batches.prompt : batch_.micro_batches.generation;
    const bool round_is_over = ++round_done_ == of_round;
    if (done.token == 0) prompts_done_s_[static_cast<std::size_t>(done.micro_batch)] = at_s;
    if (batch_.schedule == PipelineSchedule::training) {
      if (round_is_over && done.token + 1 < batch_.new_tokens)
        for (int m = 0; m < batch_.micro_batches.generation; ++m) ready_.push({round_end_s_, done.token + 1, m});
    } else if (done.token > 0) {
      if (done.token + 1 < batch_.new_tokens) ready_.push({at_s, done.token + 1, done.micro_batch});
    } else if (batch_.new_tokens > 1) {
      for (int m = 0; m < batch_.micro_batches.generation; ++m)
        if (last_prompt_of(m) == done.micro_batch) ready_.push({at_s, 1, m});
    }
    if (round_is_over && batch_.schedule == PipelineSchedule::training) round_done_ = 0;
  }

  /// The prompts' micro-batch with the last of the sequences that a generation's micro-batch holds.
  [[nodiscard]] int last_prompt_of(int generation) const noexcept {
    const int m = batch_.micro_batches.prompt, n = batch_.micro_batches.generation;
    return ((generation + 1) * m + n - 1) / n - 1;
  }

  const BatchShape& batch_;
  std::vector<double> free_s_, prompts_done_s_;
  std::priority_queue<Ready, std::vector<Ready>, std::greater<>> ready_;
  double round_end_s_ = 0.0;
  int round_done_ = 0;
  std::vector<ScheduledRun> runs_;
};

std::string name_of(const ScheduledRun& run) {
  if (run.token == 0) return concat("P", run.micro_batch);
  return concat(static_cast<char>('A' + run.micro_batch), run.token);
}

}  // namespace

std::vector<ScheduledRun> schedule_batch(const BatchShape& batch) {
  const BatchShape own = checked(batch);
  return Simulation(own)();
}

ScheduleFigures figures_of(const std::vector<ScheduledRun>& runs, int stages) {
  ScheduleFigures figures;
  double busy_s = 0.0;
  for (const ScheduledRun& run : runs) {
    if (run.token == 0) figures.prompt_s = std::max(figures.prompt_s, run.end_s);
    figures.total_s = std::max(figures.total_s, run.end_s);
    busy_s += run.end_s - run.begin_s;
  }
  if (figures.total_s > 0.0) figures.bubble_fraction = 1.0 - busy_s / (figures.total_s * stages);
  return figures;
}

double formula_s(const BatchShape& batch) {
  const BatchShape own = checked(batch);
  const int fill = own.stages - 1, later = own.new_tokens - 1;
  if (own.schedule == PipelineSchedule::training)
    return (own.micro_batches.prompt + fill) * (own.prompt_s + later * own.generation_s);
  return (own.micro_batches.prompt + fill) * own.prompt_s +
         later * std::max(own.micro_batches.generation, own.stages) * own.generation_s;
}

std::string schedule_grid(const BatchShape& batch, int columns) {
  const BatchShape own = checked(batch);
  const std::vector<ScheduledRun> runs = schedule_batch(own);
  const double tick_s = own.new_tokens > 1 ? std::min(own.prompt_s, own.generation_s) : own.prompt_s;
  const auto column = [&](double at_s) { return static_cast<std::int64_t>(std::llround(at_s / tick_s)); };
  std::int64_t width = 0;
  for (const ScheduledRun& run : runs) width = std::max(width, column(run.end_s));
  const bool cut = width > columns;
  width = std::min<std::int64_t>(width, columns);
  std::size_t cell = 1;
  for (const ScheduledRun& run : runs)
    if (column(run.begin_s) < width) cell = std::max(cell, name_of(run).size());
  std::string grid;
  for (int stage = 0; stage < own.stages; ++stage) {
    std::vector<std::string> cells(static_cast<std::size_t>(width), ".");
    for (const ScheduledRun& run : runs) {
      if (run.stage != stage) continue;
      for (std::int64_t at = column(run.begin_s); at < std::min(column(run.end_s), width); ++at)
        cells[static_cast<std::size_t>(at)] = at == column(run.begin_s) ? name_of(run) : "-";
    }
    grid += concat("stage ", stage, stage < 10 ? " " : "");
    for (const std::string& text : cells) grid += " " + text + std::string(cell - std::min(cell, text.size()), ' ');
    while (grid.back() == ' ') grid.pop_back();
    grid += cut ? " ...\n" : "\n";
  }
  return grid;
}

}  // namespace lamella
