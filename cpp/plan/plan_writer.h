// The pen that build_plan writes with: one short function an op, which names its output buffer and appends the op.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plan/build_plan.h"
#include "plan/kv_groups.h"

namespace lamella {

/// A linear with its optional bias (bias_of the weight's slot).
struct Projection {
  Slot weight;
  bool bias;
};

/// Appends ops to a plan under construction. Every function returns the buffer that holds its result; shapes follow
/// from the model and the inputs. Used by build_plan alone.
class PlanWriter {
 public:
  PlanWriter(const ModelSpec& spec, const PlanOptions& plan_options);

  void enter_layer(std::int32_t layer);
  void leave_layers() { enter_layer(-1); }
  /// Ops from here on belong to `region`.
  void begin(Region region) noexcept { region_ = region; }

  BufferId embed(const EmbeddingSpec& embedding);
  /// One table of angles for each distinct RopeSpec of the layers, shared by all layers that use it.
  void rope_tables();
  /// Returns x itself where the norm's kind is none.
  BufferId norm(const NormSpec& spec, Slot slot, BufferId x) { return norm(spec, slot, x, 0); }
  /// Of each of so many heads of a row by itself; 0: of the row.
  BufferId norm(const NormSpec& spec, Slot slot, BufferId x, std::int32_t heads);
  BufferId linear(Projection projection, BufferId x, std::string_view name);
  BufferId linear(Projection projection, BufferId x, std::string_view name, DataType type);
  BufferId rope(const AttentionSpec& attention, BufferId x, std::int32_t heads);
  void kv_write(const AttentionSpec& attention, BufferId k, BufferId v);
  BufferId split_heads(const AttentionSpec& attention, BufferId q);
  BufferId attend(const AttentionSpec& attention, BufferId q);
  BufferId merge_heads(const AttentionSpec& attention, BufferId heads);
  BufferId activate(Activation activation, BufferId x);
  BufferId activate_gated(Activation activation, BufferId gate, BufferId up);
  BufferId residual(BufferId a, BufferId b);

  /// Where a step's tokens go (OpKind::route, OpKind::dispatch).
  struct Routed {
    BufferId weights, rows, offsets, places;
  };
  /// Of rows that are normed already; `router` names their logits.
  Routed route(const ExpertsSpec& experts, BufferId logits, BufferId x);
  BufferId expert_linear(Slot slot, const ExpertsSpec& experts, const Routed& routed, BufferId x, DataType type,
                         std::string_view name);
  /// `shared` and its gate's logits where there is a shared expert.
  BufferId combine(const Routed& routed, BufferId rows, std::optional<BufferId> shared,
                   std::optional<BufferId> shared_gate);
  BufferId gather_rows(BufferId x, DataType type);
  BufferId mean_pool(BufferId x);
  BufferId vocabulary_logits(const HeadSpec& head, BufferId x);
  BufferId best_token(BufferId logits);
  /// Makes `x` the plan's output, under the output's name.
  void finish(BufferId x);
  [[nodiscard]] Plan take();

 protected:
  PlanOptions options;

 private:
  BufferId input(std::string_view name, std::vector<Dim> shape);
  BufferId shared(Buffer buffer);
  BufferId define(std::string_view name, DataType type, std::vector<Dim> shape);
  WeightIndex weight(Slot slot) const;
  WeightIndex weight(const WeightId& id) const;
  [[nodiscard]] bool has(const WeightId& id) const { return weights_.contains(id); }
  const Buffer& buffer(BufferId id) const { return plan_.buffer(id); }
  Op& append(OpKind kind, std::vector<BufferId> inputs, std::vector<BufferId> outputs);
  BufferId kv_state(const AttentionSpec& attention);
  [[nodiscard]] KvGroups::Place kv_place() const;
  std::vector<BufferId> with_step_tables(std::vector<BufferId> inputs);

  const ModelSpec& model_;
  Plan plan_;
  std::int64_t longest_ = 0;  // tokens of a sequence
  KvGroups kv_groups_;
  std::map<WeightId, WeightIndex> weights_;
  std::map<std::string, BufferId, std::less<>> shared_;           // inputs and states, which several ops name
  std::int32_t layer_ = -1;
  Region region_ = Region::none;
  std::vector<std::pair<RopeSpec, BufferId>> angles_;
};

}  // namespace lamella
