// How much goes into one step of a pipeline, so that its stages are busy at the same time: the paper's IV-C.1.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

namespace lamella {

/// What a stage's step takes: so many seconds, and so many more for each of its tokens.
struct StepTimes {
  double fixed_s = 0.0, token_s = 0.0;

  [[nodiscard]] constexpr double of(double tokens) const noexcept { return fixed_s + token_s * tokens; }
};

/// Learns them from steps, later ones more than earlier ones.
class StepTimesFit {
 public:
  void add(std::int64_t tokens, double seconds) noexcept;
  /// The line with the least squares, neither part below 0; zeros before there were any.
  [[nodiscard]] StepTimes times() const noexcept;

 private:
  double weight_ = 0.0, tokens_ = 0.0, seconds_ = 0.0, tokens2_ = 0.0, products_ = 0.0;
};

/// How the steps of prompts and of generated tokens follow each other through the stages.
enum class PipelineSchedule : std::uint8_t {
  hybrid,  // a generated token's micro-batch comes again at once; as many micro-batches as prompts and as generation want
  single,  // the same, with one count for both
  training,  // one count, and a round of micro-batches has left the pipeline before the next token's begins
};
[[nodiscard]] std::string_view to_string(PipelineSchedule schedule) noexcept;
/// Errors: invalid_argument for another name.
[[nodiscard]] PipelineSchedule pipeline_schedule_named(std::string_view name);

/// Micro-batches that share a batch's prompts, and those that share its sequences when they generate.
struct MicroBatches {
  int prompt = 1, generation = 1;

  bool operator==(const MicroBatches&) const = default;
};

/// Most micro-batches that are in the stages of a pipeline or wait before them.
inline constexpr int most_micro_batches = 16;

/// The counts with which `prompt_tokens` in all, and then a token of each of `sequences` again and again, take least:
///   - m micro-batches of prompts are through `stages` stages after (m + stages - 1) steps of tokens / m each;
///   - a round of m micro-batches, each of which comes again `turnaround_s` after it has left the last stage, takes m steps, or
///     stages steps and the turnaround where that is longer.
/// With times that are not known yet (0) as many for prompts as stages, and as many for generation. Neither count exceeds what
/// there is to share, or most_micro_batches; the least of equal ones. A pure function.
[[nodiscard]] MicroBatches choose_micro_batches(int stages, std::int64_t prompt_tokens, std::int64_t sequences,
                                                const StepTimes& times, double turnaround_s);

/// How a pipeline is fed.
struct PipelineOptions {
  PipelineSchedule schedule = PipelineSchedule::hybrid;
  /// 0: chosen. With one count for both the prompts' one counts.
  int prompt_micro_batches = 0, generation_micro_batches = 0;

  bool operator==(const PipelineOptions&) const = default;
};
/// Errors: invalid_argument naming the option for a count outside 0 to most_micro_batches, and for two counts where the schedule
/// has one.
void validate(const PipelineOptions& options);

/// What a step may hold where that is less than the engine's limits allow, so that others can run beside it.
struct StepShare {
  std::int64_t tokens = std::numeric_limits<std::int64_t>::max();  // in all
  std::int64_t generating = std::numeric_limits<std::int64_t>::max();  // sequences that have their prompts behind them
};

/// What a pipeline's next steps may hold, from what there is to do.
class MicroBatching {
 public:
  MicroBatching(int stages, int steps_in_flight, const PipelineOptions& options)
      : stages_(stages), steps_in_flight_(steps_in_flight), options_(options) {}

  struct Work {
    std::int64_t prompt_tokens = 0;  // that no step has taken yet
    std::int64_t sequences = 0;  // that run: they generate, or will when their prompts are done
    int generation_in_flight = 0;  // steps with some of them
  };
  /// A prompt's pieces stay as long as they were when it came, until there is more than there was. Where as many steps with
  /// generating sequences are in flight as there are to be micro-batches, others wait until one comes back, and join it.
  [[nodiscard]] StepShare next(const Work& work, const StepTimes& times, double turnaround_s);
  /// As many micro-batches as there are to be.
  [[nodiscard]] MicroBatches counts(const Work& work, const StepTimes& times, double turnaround_s) const;
  /// Whether a round must be over before the next one begins.
  [[nodiscard]] bool drains() const noexcept { return stages_ > 1 && options_.schedule == PipelineSchedule::training; }

 private:
  int stages_, steps_in_flight_;
  PipelineOptions options_;
  std::int64_t prompt_tokens_ = 0, piece_ = 0;
};

}  // namespace lamella
