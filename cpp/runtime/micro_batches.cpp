#include "runtime/micro_batches.h"

#include <algorithm>

#include "base/check.h"

namespace lamella {
namespace {

/// What earlier steps count for less with each one that is added: the last hundred or so decide.
constexpr double forgetting = 0.99;

/// The m in [1, most] for which cost(m) is least, the first of equals.
template <typename Cost>
int cheapest(std::int64_t most, const Cost& cost) {
  int best = 1;
  for (int m = 2; m <= std::min<std::int64_t>(most, most_micro_batches); ++m)
    if (cost(m) < cost(best)) best = m;
  return best;
}

/// Of the longest of m shares.
double largest_share(std::int64_t whole, int m) noexcept {
  const std::int64_t share = (whole + m - 1) / m;
  return static_cast<double>(share);
}

}  // namespace

void StepTimesFit::add(std::int64_t tokens, double seconds) noexcept {
  const auto x = static_cast<double>(tokens);
  for (double* sum : {&weight_, &tokens_, &seconds_, &tokens2_, &products_}) *sum *= forgetting;
  weight_ += 1.0;
  tokens_ += x;
  seconds_ += seconds;
  tokens2_ += x * x;
  products_ += x * seconds;
}

StepTimes StepTimesFit::times() const noexcept {
  if (weight_ == 0.0) return {};
  const double spread = weight_ * tokens2_ - tokens_ * tokens_;
  const double slope = spread > 1e-9 * weight_ * tokens2_ ? (weight_ * products_ - tokens_ * seconds_) / spread : 0.0;
  const double mean = seconds_ / weight_, mean_tokens = tokens_ / weight_;
  if (slope <= 0.0) return {.fixed_s = mean, .token_s = 0.0};
  const double fixed = mean - slope * mean_tokens;
  return fixed >= 0.0 ? StepTimes{.fixed_s = fixed, .token_s = slope}
                      : StepTimes{.fixed_s = 0.0, .token_s = mean / mean_tokens};
}

std::string_view to_string(PipelineSchedule schedule) noexcept {
  switch (schedule) {
    case PipelineSchedule::hybrid: return "hybrid";
    case PipelineSchedule::single: return "single";
    case PipelineSchedule::training: return "training";
  }
  return "?";
}

PipelineSchedule pipeline_schedule_named(std::string_view name) {
  for (const PipelineSchedule each : {PipelineSchedule::hybrid, PipelineSchedule::single, PipelineSchedule::training})
    if (name == to_string(each)) return each;
  throw Error(ErrorCode::invalid_argument,
              concat("pipeline_schedule is ", quoted(name), "; expected hybrid, single or training"));
}

MicroBatches choose_micro_batches(int stages, std::int64_t prompt_tokens, std::int64_t sequences,
                                  const StepTimes& times, double turnaround_s) {
  const auto capped = [&](std::int64_t most) {
    return static_cast<int>(std::clamp<std::int64_t>(std::min<std::int64_t>(stages, most), 1, most_micro_batches));
  };
  if (times.fixed_s + times.token_s <= 0.0) return {capped(prompt_tokens), capped(sequences)};
  return {.prompt = cheapest(prompt_tokens,
                             [&](int m) { return (m + stages - 1) * times.of(largest_share(prompt_tokens, m)); }),
          .generation = cheapest(sequences, [&](int m) {
            const double step = times.of(largest_share(sequences, m));
            return std::max(m * step, stages * step + turnaround_s);
          })};
}

void validate(const PipelineOptions& options) {
  struct Named {
    const char* option;
    int count;
  };
  for (const Named& each : {Named{"prompt_micro_batches", options.prompt_micro_batches},
                            Named{"generation_micro_batches", options.generation_micro_batches}})
    if (each.count < 0 || each.count > most_micro_batches)
      throw Error(ErrorCode::invalid_argument, concat(each.option, " is ", each.count, "; expected 1 to ",
                                                      most_micro_batches, ", or 0 to have it chosen"));
  if (options.schedule != PipelineSchedule::hybrid && options.generation_micro_batches != 0 &&
      options.generation_micro_batches != options.prompt_micro_batches)
    throw Error(ErrorCode::invalid_argument,
                concat("prompt_micro_batches is ", options.prompt_micro_batches, " and generation_micro_batches ",
                       options.generation_micro_batches, ", but the schedule ", to_string(options.schedule),
                       " has one count for both; give the first alone"));
}

MicroBatches MicroBatching::counts(const Work& work, const StepTimes& times, double turnaround_s) const {
  if (options_.schedule != PipelineSchedule::hybrid) {
    const int one = options_.prompt_micro_batches > 0 ? options_.prompt_micro_batches : stages_;
    return {one, std::min(one, steps_in_flight_)};
  }
  MicroBatches chosen = choose_micro_batches(stages_, work.prompt_tokens, work.sequences, times, turnaround_s);
  if (options_.prompt_micro_batches > 0) chosen.prompt = options_.prompt_micro_batches;
  if (options_.generation_micro_batches > 0) chosen.generation = options_.generation_micro_batches;
  chosen.generation = std::min(chosen.generation, steps_in_flight_);
  return chosen;
}

StepShare MicroBatching::next(const Work& work, const StepTimes& times, double turnaround_s) {
  const MicroBatches chosen = counts(work, times, turnaround_s);
  const auto share = [](std::int64_t whole, int parts) { return (whole + parts - 1) / parts; };
  if (work.prompt_tokens > prompt_tokens_) piece_ = share(work.prompt_tokens, chosen.prompt);
  prompt_tokens_ = work.prompt_tokens;
  StepShare step;
  step.generating = work.generation_in_flight < chosen.generation ? share(work.sequences, chosen.generation) : 0;
  step.tokens = step.generating + (work.prompt_tokens > 0 ? piece_ : 0);
  return step;
}

}  // namespace lamella
