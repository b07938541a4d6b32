#include "runtime/ranks.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/check.h"
#include "comm/local_world.h"
#include "plan/passes/deep_fusion.h"
#include "plan/passes/tensor_slicing.h"
#include "plan/verify.h"

namespace lamella {
namespace {

/// The plans of all ranks for one output, run side by side. Everything that it says of itself is of the first rank.
class AllRanks final : public Executor {
 public:
  AllRanks(std::vector<Executor*> ranks, ThreadTeam& threads)
      : ranks_(std::move(ranks)), threads_(threads), thrown_(ranks_.size()) {}

  [[nodiscard]] const Plan& plan() const noexcept override { return ranks_.front()->plan(); }
  [[nodiscard]] std::string kernel_name(std::size_t op) const override { return ranks_.front()->kernel_name(op); }
  [[nodiscard]] Arithmetic arithmetic(std::size_t op) const override { return ranks_.front()->arithmetic(op); }

  std::span<const float> run(const StepInput& step) override {
    std::span<const float> output;
    run_all([&](std::size_t rank) {
      const std::span<const float> own = ranks_[rank]->run(step);
      if (rank == 0) output = own;
    });
    return output;
  }
  std::vector<double> run_timed(const StepInput& step) override {
    std::vector<double> seconds;
    run_all([&](std::size_t rank) {
      std::vector<double> own = ranks_[rank]->run_timed(step);
      if (rank == 0) seconds = std::move(own);
    });
    return seconds;
  }

 private:
  template <typename Body>
  void run_all(const Body& body) {
    threads_.run([&](int member) {
      const auto rank = static_cast<std::size_t>(member);
      thrown_[rank] = nullptr;
      try {
        body(rank);
      } catch (...) {
        thrown_[rank] = std::current_exception();
      }
    });
    // Where ranks have waited for one that failed, they say what happened to the job; the one itself only what it met.
    std::exception_ptr first;
    for (const std::exception_ptr& thrown : thrown_) {
      if (!thrown) continue;
      if (is_rank_failure(thrown)) std::rethrow_exception(thrown);
      if (!first) first = thrown;
    }
    if (first) std::rethrow_exception(first);
  }

  static bool is_rank_failure(const std::exception_ptr& thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const Error& error) {
      return error.code() == ErrorCode::rank_failed;
    } catch (...) {
      return false;
    }
  }

  std::vector<Executor*> ranks_;
  ThreadTeam& threads_;
  std::vector<std::exception_ptr> thrown_;
};

}  // namespace

Ranks::Ranks(std::vector<std::unique_ptr<Device>> devices) {
  check(!devices.empty(), "an engine without a device");
  for (std::unique_ptr<Device>& device : devices) ranks_.push_back({.device = std::move(device)});
  if (size() == 1) return;
  std::vector<std::unique_ptr<comm::Communicator>> ends = comm::LocalWorld(size()).all();
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) ranks_[rank].tensor = std::move(ends[rank]);
  threads_ = std::make_unique<ThreadTeam>(size());
}

std::vector<Plan> Ranks::cut(const Plan& whole, bool fused) const {
  std::vector<Plan> plans;
  for (int rank = 0; rank < size(); ++rank) {
    Plan plan = tensor_slicing(whole, {.rank = rank, .ranks = size()});
    const bool has_kernels = ranks_[static_cast<std::size_t>(rank)].device->has_fused_kernels();
    plans.push_back(fused && has_kernels ? deep_fusion(plan) : std::move(plan));
  }
  verify_together(plans);
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
    for (auto& [output, all] : plans)
      rank.executors[output] = rank.device->executor(std::move(all[number]),
                                                     {.weights = *rank.weights,
                                                      .kv = *rank.kv,
                                                      .workspace = {rank.workspace.data(), rank.workspace.size()},
                                                      .tensor = rank.tensor.get()},
                                                     options);
  }
  if (size() == 1) return;
  for (const auto& [output, first] : ranks_.front().executors) {
    std::vector<Executor*> all;
    all.reserve(ranks_.size());
    for (const Rank& rank : ranks_) all.push_back(rank.executors.at(output).get());
    joined_[output] = std::make_unique<AllRanks>(std::move(all), *threads_);
  }
}

void Ranks::fill(const FillWeights& fill) {
  if (size() == 1) return fill(*ranks_.front().weights, device().team());
  int threads = 0;
  for (const Rank& rank : ranks_) threads += rank.device->team().size();
  ThreadTeam loaders(threads);
  for (const Rank& rank : ranks_) fill(*rank.weights, loaders);
}

Executor& Ranks::executor(PlanOutput output) const {
  return size() == 1 ? *ranks_.front().executors.at(output) : *joined_.at(output);
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
