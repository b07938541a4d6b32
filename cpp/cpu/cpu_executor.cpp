#include "cpu/cpu_executor.h"

#include <algorithm>
#include <cstring>

#include "base/affinity.h"
#include "base/check.h"
#include "base/clock.h"
#include "plan/cost.h"

namespace lamella::cpu {
namespace {

constexpr std::size_t whole_pages(std::size_t bytes) noexcept { return (bytes + 4095) / 4096 * 4096; }

/// Whole pages: workers never share one.
std::size_t rounded_scratch(const Plan& plan, int workers) {
  return whole_pages(scratch_bytes(scratch_bounds(plan, workers)));
}
std::size_t rounded_shared(const Plan& plan, int workers) {
  return whole_pages(shared_bytes(scratch_bounds(plan, workers)));
}

void check_bounds(const StepShape& step, const StepShape& bounds) {
  check(step.tokens >= 1 && step.tokens <= bounds.tokens && step.sequences >= 1 && step.sequences <= bounds.sequences &&
            step.rows >= 0 && step.rows <= bounds.rows && step.kv_blocks <= bounds.kv_blocks,
        "a step of ", step.tokens, " tokens, ", step.sequences, " sequences, ", step.rows, " rows and ", step.kv_blocks,
        " blocks exceeds the plan's ", bounds.tokens, ", ", bounds.sequences, ", ", bounds.rows, " and ",
        bounds.kv_blocks);
}

}  // namespace

ScratchBounds scratch_bounds(const Plan& plan, int workers) {
  ScratchBounds bounds{
      .max_tokens = plan.bounds.tokens, .max_context = plan.bounds.kv_blocks * kv_block_tokens, .workers = workers};
  for (const WeightDeclaration& weight : plan.weights) {
    bounds.max_inputs = std::max(bounds.max_inputs, weight.columns);
    bounds.max_outputs = std::max(bounds.max_outputs, weight.rows);
  }
  for (const Op& op : plan.ops) {
    const OpAttributes& a = op.attributes;
    bounds.max_head_dim = std::max<std::int64_t>(bounds.max_head_dim, a.head_dim);
    if (op.kind == OpKind::greedy_head) bounds.max_rows = plan.bounds.rows;
    if (a.experts) {
      bounds.max_experts = std::max<std::int64_t>(bounds.max_experts, a.experts->count);
      bounds.max_top_k = std::max<std::int64_t>(bounds.max_top_k, a.experts->top_k);
    }
    for (int some = 2; a.kv_heads > 0 && some <= workers; ++some)  // fewer than all may take part
      if (a.kv_heads % some != 0) bounds.split_group = std::max<std::int64_t>(bounds.split_group, a.heads / a.kv_heads);
  }
  return bounds;
}

std::size_t CpuExecutor::workspace_bytes(const Plan& plan, int threads) {
  return whole_pages(static_cast<std::size_t>(plan_buffers(plan).bytes)) + rounded_shared(plan, threads) +
         rounded_scratch(plan, threads) * static_cast<std::size_t>(threads);
}

CpuExecutor::CpuExecutor(Plan plan, const Borrowed& memory, ThreadTeam& team, const Kernels& kernels, Members members)
    : plan_(std::move(plan)),
      buffers_(plan_buffers(plan_)),
      team_(team),
      members_(members),
      activations_(memory.workspace.data()),
      shared_(activations_ + whole_pages(static_cast<std::size_t>(buffers_.bytes))),
      shared_size_(rounded_shared(plan_, team.size())),
      scratch_each_(rounded_scratch(plan_, team.size())),
      scratch_(shared_ + shared_size_),
      shares_(std::make_unique<WorkShare[]>(static_cast<std::size_t>(team.size()))),
      groups_(memory.groups) {
  const std::size_t needed = workspace_bytes(plan_, team.size());
  check(memory.workspace.size() >= needed, "a workspace of ", memory.workspace.size(), " bytes for a plan of ", needed);
  check(kernels.table.dtype == dtype_of(plan_), kernels.table.name, " kernels for ", to_string(kernels.table.dtype),
        " and a plan of ", to_string(dtype_of(plan_)));
  const Places places{
      .buffer =
          [&](BufferId id) {
            const Buffer& buffer = plan_.buffer(id);
            return buffer.kind == BufferKind::state ? memory.kv.data(buffer.name)
                                                    : activations_ + buffers_.find(id)->offset;
          },
      .matrix = [&](const WeightId& id) { return memory.weights.matrix(id); },
      .vector = [&](const WeightId& id) { return memory.weights.vector(id); },
      .groups = memory.groups,
  };
  ops_.reserve(plan_.ops.size());
  for (const Op& op : plan_.ops) ops_.push_back(bind(plan_, op, kernels, places));
}

int CpuExecutor::workers() const {
  return members_ == Members::all ? team_.size() : std::min(team_.size(), affine_cores());
}

void CpuExecutor::prepare(const StepInput& step, int workers) {
  const StepShape shape = step.shape();
  check_bounds(shape, plan_.bounds);
  for (const Placement& place : buffers_.placements) {
    const Buffer& buffer = plan_.buffer(place.buffer);
    if (buffer.kind != BufferKind::input) continue;
    const std::span<const std::int32_t> words = step.named(buffer.name);
    std::memcpy(activations_ + place.offset, words.data(), words.size_bytes());
  }
  for (BoundOp& op : ops_) op.resize(shape, workers);
  std::fill_n(shares_.get(), team_.size(), WorkShare{});
}

void CpuExecutor::execute(int workers, std::vector<double>* seconds) {
  if (seconds != nullptr) seconds->assign(ops_.size(), 0.0);
  // Where members are kept off their cores, those who take the others' work sleep less, and the system gives them less:
  // beside a busy neighbour a step took 8.2 ms in place of 7.2 (bench/results/work-shares-zen4-2026-11.md).
  WorkShare* const shares = team_.runs_together() ? shares_.get() : nullptr;
  team_.run(workers, [&](int index) {
    Worker worker{.index = index,
                  .count = workers,
                  .scratch = {scratch_ + scratch_each_ * static_cast<std::size_t>(index), scratch_each_},
                  .shared = {shared_, shared_size_},
                  .shares = shares};
    // Kernels throw only when memory runs out or a rank fails; a member that failed still meets the others at every
    // barrier, and the other ranks are told.
    std::exception_ptr failure;
    double start = seconds != nullptr && index == 0 ? now_seconds() : 0.0;
    for (std::size_t i = 0; i < ops_.size(); ++i) {
      const int phases = ops_[i].phases();
      for (worker.phase = 0; worker.phase < phases; ++worker.phase) {
        ++worker.round;
        try {
          ops_[i].run(worker);
        } catch (const std::exception& error) {
          if (!failure) failure = std::current_exception();
          if (groups_.any() != nullptr) groups_.any()->fail(error.what());
        }
        team_.barrier();
      }
      if (seconds == nullptr || index != 0) continue;
      const double end = now_seconds();
      (*seconds)[i] = end - start;
      start = end;
    }
    if (failure) std::rethrow_exception(failure);
  });
}

std::span<const float> CpuExecutor::output(const StepShape& shape) const {
  for (const Placement& place : buffers_.placements) {
    const Buffer& buffer = plan_.buffer(place.buffer);
    if (buffer.kind != BufferKind::output) continue;
    return {reinterpret_cast<const float*>(activations_ + place.offset),
            static_cast<std::size_t>(element_count(buffer, shape))};
  }
  return {};  // of a stage before the last
}

std::span<const float> CpuExecutor::run(const StepInput& step) {
  const int taking_part = workers();
  prepare(step, taking_part);
  execute(taking_part, nullptr);
  return output(step.shape());
}

std::vector<double> CpuExecutor::run_timed(const StepInput& step) {
  const int taking_part = workers();
  prepare(step, taking_part);
  std::vector<double> seconds;
  execute(taking_part, &seconds);
  return seconds;
}

}  // namespace lamella::cpu
