#include "plan/passes/pipeline_stages.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/check.h"
#include "plan/cost.h"
#include "plan/verify.h"

namespace lamella {
namespace {

constexpr std::int64_t prompt_tokens = 128;  // of the step whose FLOPs count

/// Ops before the layers, of each layer, and behind them.
struct Shares {
  double before = 0.0, behind = 0.0;
  std::vector<double> layers;
};

Shares shares_of(const Plan& plan) {
  std::int64_t layers = 0;
  for (const Op& op : plan.ops) layers = std::max(layers, std::int64_t{op.layer} + 1);
  Shares shares{.layers = std::vector<double>(static_cast<std::size_t>(layers))};
  const StepShape token = StepShape::uniform(1, 1, prompt_tokens),
                  prompt = StepShape::uniform(1, prompt_tokens, prompt_tokens);
  double all_bytes = 0.0, all_flops = 0.0;
  for (const Op& op : plan.ops) {
    all_bytes += static_cast<double>(cost(plan, op, token).bytes_read);
    all_flops += static_cast<double>(cost(plan, op, prompt).flops);
  }
  bool in_layers = false;
  for (const Op& op : plan.ops) {
    in_layers = in_layers || op.layer >= 0;
    double& share = op.layer >= 0 ? shares.layers[static_cast<std::size_t>(op.layer)]
                    : in_layers   ? shares.behind
                                  : shares.before;
    share += 0.5 * static_cast<double>(cost(plan, op, token).bytes_read) / all_bytes +
             0.5 * static_cast<double>(cost(plan, op, prompt).flops) / all_flops;
  }
  return shares;
}

/// Layers of each stage, as many as fit into `most` but one at least for each stage that is left; none where that is not
/// enough for all.
std::optional<std::vector<ShardRange>> filled(const Shares& shares, int stages, double most) {
  const auto layers = static_cast<std::int64_t>(shares.layers.size());
  std::vector<ShardRange> cut;
  std::int64_t next = 0;
  for (int stage = 0; stage < stages; ++stage) {
    const bool last = stage == stages - 1;
    double share = (stage == 0 ? shares.before : 0.0) + (last ? shares.behind : 0.0);
    ShardRange own{next, next};
    for (; own.end < layers - (stages - 1 - stage); ++own.end) {
      const double more = share + shares.layers[static_cast<std::size_t>(own.end)];
      if (more > most) break;
      share = more;
    }
    if (own.size() == 0) return std::nullopt;
    next = own.end;
    cut.push_back(own);
  }
  return next == layers ? std::optional(cut) : std::nullopt;
}

/// One stage's ops, cut out of the plan.
class StageCut {
 public:
  StageCut(const Plan& plan, const std::vector<ShardRange>& layers, int stage)
      : plan_(plan), stage_(stage), last_(static_cast<int>(layers.size()) - 1), by_op_(plan.ops.size()) {
    int now = 0;
    for (std::size_t i = 0; i < plan.ops.size(); ++i) {
      const std::int32_t layer = plan.ops[i].layer;
      if (layer >= 0) {
        while (layer >= layers[static_cast<std::size_t>(now)].end) ++now;
        in_layers_ = true;
      } else if (in_layers_) {
        now = last_;
      }
      by_op_[i] = now;
    }
    for (const Op& op : plan.ops)
      if (op.weights.empty() && std::ranges::all_of(op.inputs, [&](BufferId id) { return is_input(id); }))
        from_inputs_.insert(op.outputs.begin(), op.outputs.end());
  }

  Plan operator()() {
    cut_.buffers = plan_.buffers;
    cut_.weights = plan_.weights;
    cut_.bounds = plan_.bounds;
    if (stage_ > 0)
      for (const BufferId id : passed_on(stage_ - 1)) add(OpKind::receive, {}, {id});
    for (std::size_t i = 0; i < plan_.ops.size(); ++i) {
      const Op& op = plan_.ops[i];
      const bool is_needed = op.outputs.size() == 1 && from_inputs_.contains(op.outputs.front()) &&
                             by_op_[i] < stage_ && is_read_by_stage(op.outputs.front());
      if (by_op_[i] == stage_ || is_needed) cut_.ops.push_back(op);
    }
    if (stage_ < last_)
      for (const BufferId id : passed_on(stage_)) add(OpKind::send, {id}, {});
    keep_own_weights();
    return without_unused_buffers(std::move(cut_));
  }

 private:
  [[nodiscard]] bool is_input(BufferId id) const { return plan_.buffer(id).kind == BufferKind::input; }

  /// What stages up to this one define and later ones read, in order of definition.
  [[nodiscard]] std::vector<BufferId> passed_on(int stage) const {
    std::set<BufferId> read_later;
    for (std::size_t i = 0; i < plan_.ops.size(); ++i)
      if (by_op_[i] > stage) read_later.insert(plan_.ops[i].inputs.begin(), plan_.ops[i].inputs.end());
    std::vector<BufferId> found;
    for (std::size_t i = 0; i < plan_.ops.size(); ++i)
      for (const BufferId id : plan_.ops[i].outputs)
        if (by_op_[i] <= stage && read_later.contains(id) && !from_inputs_.contains(id) &&
            plan_.buffer(id).kind == BufferKind::activation)
          found.push_back(id);
    return found;
  }
  [[nodiscard]] bool is_read_by_stage(BufferId id) const {
    for (std::size_t i = 0; i < plan_.ops.size(); ++i)
      if (by_op_[i] == stage_ && std::ranges::find(plan_.ops[i].inputs, id) != plan_.ops[i].inputs.end()) return true;
    return false;
  }

  void add(OpKind kind, std::vector<BufferId> inputs, std::vector<BufferId> outputs) {
    cut_.ops.push_back({.kind = kind,
                        .layer = -1,
                        .region = Region::none,
                        .inputs = std::move(inputs),
                        .outputs = std::move(outputs),
                        .weights = {},
                        .attributes = {}});
  }

  void keep_own_weights() {
    const auto named_by = [&](const std::vector<Op>& ops) {
      std::vector<bool> named(plan_.weights.size(), false);
      for (const Op& op : ops)
        for (const WeightIndex index : op.weights) named[static_cast<std::size_t>(index)] = true;
      return named;
    };
    const std::vector<bool> here = named_by(cut_.ops), anywhere = named_by(plan_.ops);
    std::vector<WeightDeclaration> kept;
    std::vector<WeightIndex> renumbered(plan_.weights.size());
    for (std::size_t i = 0; i < plan_.weights.size(); ++i) {
      if (!here[i] && (stage_ != last_ || anywhere[i])) continue;
      renumbered[i] = WeightIndex{static_cast<std::uint32_t>(kept.size())};
      kept.push_back(std::move(cut_.weights[i]));
    }
    cut_.weights = std::move(kept);
    for (Op& op : cut_.ops)
      for (WeightIndex& index : op.weights) index = renumbered[static_cast<std::size_t>(index)];
  }

  const Plan& plan_;
  const int stage_, last_;
  std::vector<int> by_op_;  // the stage of each
  bool in_layers_ = false;
  std::set<BufferId> from_inputs_;  // computed from a step's inputs alone, without weights
  Plan cut_;
};

}  // namespace

std::vector<ShardRange> balance_stages(const Plan& plan, int stages) {
  const Shares shares = shares_of(plan);
  check(stages >= 1 && static_cast<std::size_t>(stages) <= shares.layers.size(), stages, " stages of ",
        shares.layers.size(), " layers");
  // The best cut's largest stage is a run of layers, with what stands at the ends: try all of these sums, least first.
  std::vector<double> sums;
  for (std::size_t begin = 0; begin < shares.layers.size(); ++begin) {
    double sum = begin == 0 ? shares.before : 0.0;
    for (std::size_t end = begin; end < shares.layers.size(); ++end) {
      sum += shares.layers[end];
      sums.push_back(sum + (end + 1 == shares.layers.size() ? shares.behind : 0.0));
    }
  }
  std::ranges::sort(sums);
  constexpr double rounding = 1e-9;  // sums of the same layers in another order
  const auto best =
      std::ranges::partition_point(sums, [&](double most) { return !filled(shares, stages, most + rounding); });
  check(best != sums.end(), "no cut of ", shares.layers.size(), " layers into ", stages, " stages");
  return *filled(shares, stages, *best + rounding);
}

Plan pipeline_stages(const Plan& plan, const std::vector<ShardRange>& layers, int stage) {
  check(stage >= 0 && static_cast<std::size_t>(stage) < layers.size(), "stage ", stage, " of ", layers.size());
  if (layers.size() == 1) return plan;
  Plan cut = StageCut(plan, layers, stage)();
  verify(cut);
  return cut;
}

}  // namespace lamella
