#include "runtime/ranks.h"

#include <algorithm>
#include <exception>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "comm/local_world.h"
#include "plan/passes/deep_fusion.h"
#include "plan/passes/pipeline_stages.h"
#include "plan/passes/tensor_slicing.h"
#include "plan/verify.h"

namespace lamella {
namespace {

/// One rank among several: what it throws is told to the others, who may be waiting for it, and is the failure of a rank.
class OneRank final : public Executor {
 public:
  OneRank(std::unique_ptr<Executor> own, comm::Communicator& job) : own_(std::move(own)), job_(job) {}

  [[nodiscard]] const Plan& plan() const noexcept override { return own_->plan(); }
  [[nodiscard]] std::string kernel_name(std::size_t op) const override { return own_->kernel_name(op); }
  [[nodiscard]] Arithmetic arithmetic(std::size_t op) const override { return own_->arithmetic(op); }
  std::span<const float> run(const StepInput& step) override {
    return told([&] { return own_->run(step); });
  }
  std::vector<double> run_timed(const StepInput& step) override {
    return told([&] { return own_->run_timed(step); });
  }

 private:
  template <typename Body>
  std::invoke_result_t<Body> told(const Body& body) {
    try {
      return body();
    } catch (const std::exception& error) {
      const auto* own = dynamic_cast<const Error*>(&error);
      if (own != nullptr && own->code() == ErrorCode::rank_failed) throw;
      fail(error.what());
    } catch (...) {
      fail("an exception that is no std::exception");
    }
  }
  [[noreturn]] void fail(std::string_view cause) {
    job_.fail(cause);
    const int number = job_.members().ranks[static_cast<std::size_t>(job_.rank())];
    throw Error(ErrorCode::rank_failed, concat("rank ", number, " failed: ", cause));
  }

  std::unique_ptr<Executor> own_;
  comm::Communicator& job_;
};

/// The plans of several ranks for one output, run side by side. What it says of itself is of the first of them.
class AllRanks final : public Executor {
 public:
  /// `answering`: whose output is the output of all.
  AllRanks(std::vector<Executor*> ranks, std::size_t answering, ThreadTeam& threads)
      : ranks_(std::move(ranks)), answering_(answering), threads_(threads) {}

  [[nodiscard]] const Plan& plan() const noexcept override { return ranks_.front()->plan(); }
  [[nodiscard]] std::string kernel_name(std::size_t op) const override { return ranks_.front()->kernel_name(op); }
  [[nodiscard]] Arithmetic arithmetic(std::size_t op) const override { return ranks_.front()->arithmetic(op); }

  std::span<const float> run(const StepInput& step) override {
    std::span<const float> output;
    run_all([&](std::size_t rank) {
      const std::span<const float> own = ranks_[rank]->run(step);
      if (rank == answering_) output = own;
    });
    return output;
  }
  std::vector<double> run_timed(const StepInput& step) override { return std::move(run_each_timed(step).front()); }
  /// Seconds of every rank's ops.
  std::vector<std::vector<double>> run_each_timed(const StepInput& step) {
    std::vector<std::vector<double>> seconds(ranks_.size());
    run_all([&](std::size_t rank) { seconds[rank] = ranks_[rank]->run_timed(step); });
    return seconds;
  }

 private:
  /// Throws what a rank has thrown: all that it could throw names the rank that failed first.
  template <typename Body>
  void run_all(const Body& body) {
    threads_.run([&](int member) { body(static_cast<std::size_t>(member)); });
  }

  std::vector<Executor*> ranks_;
  std::size_t answering_;
  ThreadTeam& threads_;
};

}  // namespace

Ranks::Ranks(std::vector<std::unique_ptr<Device>> devices, const comm::ParallelSizes& sizes) : topology_(sizes) {
  check(sizes.data == 1 && static_cast<int>(devices.size()) == sizes.ranks(), devices.size(), " devices for ",
        sizes.tensor, " x ", sizes.pipeline, " ranks");
  for (std::unique_ptr<Device>& device : devices) ranks_.push_back({.device = std::move(device)});
  if (size() == 1) return;
  comm::LocalWorld world(size());
  if (sizes.tensor > 1)
    for (const comm::GroupMembers& group : topology_.groups(comm::GroupKind::tensor))
      join(group, world.group(group), &Rank::tensor);
  if (sizes.pipeline > 1)
    for (const comm::GroupMembers& group : topology_.groups(comm::GroupKind::pipeline))
      join(group, world.group(group), &Rank::pipeline);
  threads_ = std::make_unique<ThreadTeam>(size());
  for (int stage = 0; stage < stages() && stages() > 1 && sizes.tensor > 1; ++stage)
    stage_threads_.push_back(std::make_unique<ThreadTeam>(sizes.tensor));
}

void Ranks::join(const comm::GroupMembers& group, std::vector<std::unique_ptr<comm::Communicator>> ends,
                 std::unique_ptr<comm::Communicator> Rank::* end) {
  for (std::size_t i = 0; i < ends.size(); ++i)
    ranks_[static_cast<std::size_t>(group.ranks[i])].*end = std::move(ends[i]);
}

int Ranks::threads() const noexcept {
  int sum = 0;
  for (const Rank& rank : ranks_) sum += rank.device->team().size();
  return sum;
}

std::string Ranks::device_name() const {
  return size() == 1 ? device().name() : concat(size(), " ranks: ", device().name());
}

void Ranks::share_layers(const Plan& whole) { layers_ = balance_stages(whole, stages()); }

std::vector<Plan> Ranks::cut(const Plan& whole, bool fused) const {
  const int tensor = topology_.sizes().tensor;
  std::vector<Plan> sliced;
  sliced.reserve(static_cast<std::size_t>(tensor));
  for (int part = 0; part < tensor; ++part) sliced.push_back(tensor_slicing(whole, {.rank = part, .ranks = tensor}));
  std::vector<Plan> plans;
  for (int rank = 0; rank < size(); ++rank) {
    Plan plan = pipeline_stages(sliced[static_cast<std::size_t>(rank % tensor)], layers_, rank / tensor);
    const bool has_kernels = ranks_[static_cast<std::size_t>(rank)].device->has_fused_kernels();
    plans.push_back(fused && has_kernels ? deep_fusion(plan) : std::move(plan));
  }
  for (int stage = 0; stage < stages(); ++stage)
    verify_together(std::span(plans).subspan(first_of(stage), static_cast<std::size_t>(tensor)));
  return plans;
}

std::uint64_t Ranks::workspace_bytes(const std::vector<std::vector<Plan>>& plans) const {
  std::uint64_t bytes = 0;
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
    std::size_t most = 0;
    for (const std::vector<Plan>& output : plans)
      most = std::max(most, ranks_[rank].device->workspace_bytes(output[rank]));
    bytes += most;
  }
  return bytes;
}

std::uint64_t Ranks::weight_bytes(const std::vector<Plan>& plans) {
  std::uint64_t bytes = 0;
  for (const Plan& plan : plans) bytes += ResidentWeights::planned_bytes(plan.weights);
  return bytes;
}

std::uint64_t Ranks::kv_bytes_per_block(const std::vector<Plan>& plans) {
  std::uint64_t bytes = 0;
  for (const Plan& plan : plans) bytes += KvMemory::bytes_per_block(plan);
  return bytes;
}

void Ranks::prepare(std::map<PlanOutput, std::vector<Plan>> plans, const ExecutorOptions& options) {
  for (std::size_t number = 0; number < ranks_.size(); ++number) {
    Rank& rank = ranks_[number];
    const Plan& any = plans.begin()->second[number];
    std::size_t workspace = 0;
    for (const auto& [output, all] : plans) workspace = std::max(workspace, rank.device->workspace_bytes(all[number]));
    rank.weights = std::make_unique<ResidentWeights>(any.weights);
    rank.kv = std::make_unique<KvMemory>(any, "the KV cache");
    rank.workspace = Allocation(workspace, "activations");
    const RankGroups groups{.tensor = rank.tensor.get(), .pipeline = rank.pipeline.get()};
    for (auto& [output, all] : plans) {
      std::unique_ptr<Executor>& executor = rank.executors[output];
      executor = rank.device->executor(std::move(all[number]),
                                       {.weights = *rank.weights,
                                        .kv = *rank.kv,
                                        .workspace = {rank.workspace.data(), rank.workspace.size()},
                                        .groups = groups},
                                       options);
      if (groups.any() != nullptr) executor = std::make_unique<OneRank>(std::move(executor), *groups.any());
    }
  }
  const auto tensor = static_cast<std::size_t>(topology_.sizes().tensor);
  for (const auto& [output, any] : ranks_.front().executors) {
    whole_[output] = joined(output, 0, ranks_.size(), first_of(stages() - 1), threads_.get());
    for (int stage = 0; stage < stages(); ++stage)
      stages_[output].push_back(
          stages() == 1
              ? whole_[output]
              : joined(output, first_of(stage), tensor, 0,
                       stage_threads_.empty() ? nullptr : stage_threads_[static_cast<std::size_t>(stage)].get()));
  }
}

Executor* Ranks::joined(PlanOutput output, std::size_t first, std::size_t count, std::size_t answering,
                        ThreadTeam* threads) {
  if (count == 1) return ranks_[first].executors.at(output).get();
  std::vector<Executor*> all;
  for (std::size_t rank = first; rank < first + count; ++rank) all.push_back(ranks_[rank].executors.at(output).get());
  return joined_.emplace_back(std::make_unique<AllRanks>(std::move(all), answering, *threads)).get();
}

void Ranks::fill(const FillWeights& fill) {
  std::vector<ResidentWeights*> weights;
  weights.reserve(ranks_.size());
  for (const Rank& rank : ranks_) weights.push_back(rank.weights.get());
  if (size() == 1) return fill(weights, device().team());
  ThreadTeam loaders(threads());
  fill(weights, loaders);
}

std::vector<std::vector<double>> Ranks::run_timed(PlanOutput output, const StepInput& step) {
  if (size() == 1) return {executor(output).run_timed(step)};
  std::vector<std::vector<double>> all = static_cast<AllRanks&>(executor(output)).run_each_timed(step), firsts;
  for (int stage = 0; stage < stages(); ++stage) firsts.push_back(std::move(all[first_of(stage)]));
  return firsts;
}

Roofline Ranks::measure_roofline(std::optional<std::uint64_t> left_of_budget) {
  if (size() == 1) return device().measure_roofline(left_of_budget);
  const std::uint64_t available = device().available_memory(),
                      each = std::min(available, left_of_budget.value_or(available)) / ranks_.size();
  std::vector<Roofline> roofs(ranks_.size());
  threads_->run([&](int member) {
    const auto rank = static_cast<std::size_t>(member);
    roofs[rank] = ranks_[rank].device->measure_roofline(each);
  });
  return roofs.front();
}

void Ranks::clear_kv(std::span<const std::int32_t> blocks) {
  for (Rank& rank : ranks_) rank.kv->clear(blocks);
}

std::uint64_t Ranks::bytes_weights() const noexcept {
  std::uint64_t bytes = 0;
  for (const Rank& rank : ranks_) bytes += rank.weights->total_bytes();
  return bytes;
}
std::uint64_t Ranks::bytes_kv() const noexcept {
  std::uint64_t bytes = 0;
  for (const Rank& rank : ranks_) bytes += rank.kv->total_bytes();
  return bytes;
}
std::uint64_t Ranks::bytes_workspace() const noexcept {
  std::uint64_t bytes = 0;
  for (const Rank& rank : ranks_) bytes += rank.workspace.size();
  return bytes;
}

}  // namespace lamella
