// A CPU device that keeps the logits of every step, so that tests can compare bits and not only the tokens drawn from
// them; and that runs any kernel table, also one with a planted fault.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "cpu/cpu_device.h"
#include "plan/cost.h"

namespace lamella::testing {

/// Rows of logits by the first token of their sequence, which tells the sequences of a test apart, and the position.
/// Windows must reach a token back.
using LogitRows = std::map<std::pair<std::int32_t, std::int32_t>, std::vector<float>>;

class RecordingExecutor final : public Executor {
 public:
  RecordingExecutor(std::unique_ptr<Executor> inner, LogitRows& rows) : inner_(std::move(inner)), rows_(rows) {}

  [[nodiscard]] const Plan& plan() const noexcept override { return inner_->plan(); }
  std::span<const float> run(const StepInput& step) override {
    const std::span<const float> output = inner_->run(step);
    if (plan().find("logits") == nullptr) return output;
    const auto tokens = step.named("token_ids"), positions = step.named("positions"), spans = step.named("sequences"),
               tables = step.named("block_tables"), rows = step.named("row_indices");
    const std::size_t width = rows.empty() ? 0 : output.size() / rows.size();
    for (std::size_t s = 0; s < spans.size() / 2; ++s) {
      const std::int32_t first = spans[2 * s], end = first + spans[2 * s + 1];
      const auto block_of = [&](std::int32_t position) {
        return tables[s * static_cast<std::size_t>(step.kv_blocks()) +
                      static_cast<std::size_t>(position / static_cast<std::int32_t>(kv_block_tokens))];
      };
      const std::int32_t begin = positions[static_cast<std::size_t>(first)];
      const std::int32_t name = begin == 0 ? tokens[static_cast<std::size_t>(first)] : names_[block_of(begin - 1)];
      for (std::int32_t i = first; i < end; ++i) names_[block_of(positions[static_cast<std::size_t>(i)])] = name;
      for (std::size_t r = 0; r < rows.size(); ++r) {
        if (rows[r] < first || rows[r] >= end) continue;
        const std::span<const float> row = output.subspan(r * width, width);
        rows_[{name, positions[static_cast<std::size_t>(rows[r])]}].assign(row.begin(), row.end());
      }
    }
    return output;
  }
  std::vector<double> run_timed(const StepInput& step) override { return inner_->run_timed(step); }
  [[nodiscard]] std::string kernel_name(std::size_t op) const override { return inner_->kernel_name(op); }
  [[nodiscard]] Arithmetic arithmetic(std::size_t op) const override { return inner_->arithmetic(op); }

 private:
  std::unique_ptr<Executor> inner_;
  LogitRows& rows_;
  std::map<std::int32_t, std::int32_t> names_;  // of sequences, by every KV block of theirs that a step wrote to
};

class RecordingDevice final : public Device {
 public:
  /// `kernels` and `rows` outlive the device.
  RecordingDevice(int threads, const cpu::KernelTable& kernels, LogitRows& rows)
      : inner_({.threads = threads}), kernels_(kernels), rows_(rows) {}

  [[nodiscard]] std::unique_ptr<Executor> executor(Plan plan, const Borrowed& memory,
                                                   const ExecutorOptions& options) override {
    auto executor =
        std::make_unique<cpu::CpuExecutor>(std::move(plan), memory, inner_.team(), cpu::Kernels{kernels_, options});
    return std::make_unique<RecordingExecutor>(std::move(executor), rows_);
  }
  [[nodiscard]] bool has_fused_kernels() const noexcept override { return kernels_.norm_qkv != nullptr; }
  [[nodiscard]] std::size_t workspace_bytes(const Plan& plan) const override { return inner_.workspace_bytes(plan); }
  [[nodiscard]] std::uint64_t available_memory() const override { return inner_.available_memory(); }
  [[nodiscard]] ThreadTeam& team() noexcept override { return inner_.team(); }
  [[nodiscard]] const LogitKernels& logit_kernels() const noexcept override { return inner_.logit_kernels(); }
  [[nodiscard]] Roofline measure_roofline(std::optional<std::uint64_t> left) override {
    return inner_.measure_roofline(left);
  }
  [[nodiscard]] std::string name() const override { return inner_.name(); }

 private:
  cpu::CpuDevice inner_;
  const cpu::KernelTable& kernels_;
  LogitRows& rows_;
};

}  // namespace lamella::testing
