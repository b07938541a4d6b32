#include "plan/passes/tensor_slicing.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

#include "base/check.h"
#include "plan/verify.h"

namespace lamella {
namespace {

/// How a rank holds what a buffer of the whole plan holds.
struct Held {
  enum class How {
    whole,    // all of it, like every other rank
    columns,  // some of its columns: `own`, and every rank's number in `parts`
    partial,  // a summand: the value is the sum over ranks, plus `biases`, plus `added`
  };
  How how = How::whole;
  BufferId id{};  // in the new plan
  std::vector<ShardRange> own = {};
  std::vector<std::int64_t> parts = {};  // empty: ranks' columns overlap, so nothing can bring them together
  std::vector<WeightIndex> biases = {};
  std::optional<BufferId> added = {};
  Op where = {};  // layer and region of what defined it
};

/// Rewrites a plan op by op. Every value is brought together when, and only if, an op wants it whole.
class Slicer {
 public:
  Slicer(const Plan& plan, const TensorRank& where) : plan_(plan), where_(where) {
    sliced_.weights = plan.weights;
    sliced_.bounds = plan.bounds;
    for (const Op& op : plan.ops)
      if (op.kind == OpKind::attention) {
        AttentionSpec attention;
        attention.heads = op.attributes.heads;
        attention.kv_heads = op.attributes.kv_heads;
        heads_[op.layer] = shard_heads(attention, where.rank, where.ranks);
        attentions_[op.layer] = attention;
      }
  }

  Plan operator()() {
    for (const Op& op : plan_.ops) rewrite(op);
    for (std::size_t i = 0; i < plan_.buffers.size(); ++i)
      if (plan_.buffers[i].kind == BufferKind::output) whole(BufferId{static_cast<std::uint32_t>(i)});
    return without_unused_buffers(std::move(sliced_));
  }

 private:
  void rewrite(const Op& op) {
    switch (op.kind) {
      case OpKind::embed: return embed(op);
      case OpKind::linear: return linear(op);
      case OpKind::add_bias: return add_bias(op);
      case OpKind::norm: return op.attributes.heads > 0 ? alike(op) : unchanged(op);
      case OpKind::rope:
      case OpKind::activate:
      case OpKind::activate_gated: return alike(op);
      case OpKind::kv_write: return kv_write(op);
      case OpKind::split_heads:
      case OpKind::attention:
      case OpKind::merge_heads: return of_heads(op);
      case OpKind::residual: return residual(op);
      case OpKind::best_token: return best_token(op);
      case OpKind::expert_linear: return expert_linear(op);
      case OpKind::combine: return combine(op);
      default: return unchanged(op);
    }
  }

  // ---- kinds of ops ----

  /// Wants all inputs whole, and so is its output.
  void unchanged(const Op& op) {
    Op copy = op;
    for (BufferId& id : copy.inputs) id = whole(id);
    for (BufferId& id : copy.outputs) id = define(id, plan_.buffer(id));
    sliced_.ops.push_back(std::move(copy));
  }

  void embed(const Op& op) {
    const WeightIndex table = weight_of(op, Slot::token_embedding);
    const ShardRange rows = shard_width(plan_.weight(table).rows, where_.rank, where_.ranks);
    cut_outputs(table, {rows});
    Op copy = op;
    for (BufferId& id : copy.inputs) id = whole(id);
    copy.attributes.first_token = static_cast<std::int32_t>(rows.begin);
    copy.outputs = {add(plan_.buffer(op.outputs[0]), ".part")};
    hold(op.outputs[0], {.how = Held::How::partial, .id = copy.outputs[0], .where = place_of(op)});
    sliced_.ops.push_back(std::move(copy));
  }

  void linear(const Op& op) {
    const WeightDeclaration& matrix = plan_.matrix(op);
    switch (matrix.id.slot) {
      case Slot::query: return to_columns(op, head_columns(op.layer, false));
      case Slot::key:
      case Slot::value: return to_columns(op, head_columns(op.layer, true));
      case Slot::mlp_up:
      case Slot::mlp_gate:
      case Slot::shared_up:
      case Slot::shared_gate:
      case Slot::token_embedding:
      case Slot::head: return to_columns(op, width_columns(matrix.rows));
      case Slot::attention_output:
      case Slot::mlp_down:
      case Slot::shared_down:
        if (can_be_summed(held_.at(op.inputs[0]), matrix)) return to_summands(op);
        return to_columns(op, width_columns(matrix.rows));
      default: return unchanged(op);
    }
  }

  /// Every expert is cut like a dense layer's MLP.
  void expert_linear(const Op& op) {
    const WeightDeclaration& first = plan_.weight(op.weights.front());
    if (first.id.slot != Slot::mlp_down) return to_columns(op, width_columns(first.rows));
    const Held& x = held_.at(op.inputs[0]);
    const bool summed = std::ranges::all_of(op.weights, [&](WeightIndex index) {
      return is_vector(plan_.weight(index).id.slot) || can_be_summed(x, plan_.weight(index));
    });
    if (!summed) return to_columns(op, width_columns(first.rows));
    to_summands(op);
    if (where_.rank == 0) return;
    std::erase_if(sliced_.ops.back().weights, [&](WeightIndex index) {  // a bias counts once
      return is_vector(plan_.weight(index).id.slot);
    });
  }

  /// The weighted sum is linear: where its rows, and the shared expert's, are summands of every rank, so is it; where ranks
  /// hold the same columns of both, each sums its own.
  void combine(Op op) {
    op.region = Region::none;  // what follows may wait for other ranks
    Held like = held_.at(op.inputs[0]);
    const bool shared = op.inputs.size() > 3;
    const Held* other = shared ? &held_.at(op.inputs[3]) : nullptr;
    const bool alike = !shared || (other->how == like.how && other->own == like.own && other->biases.empty());
    if (like.how == Held::How::whole || !alike) return unchanged(op);
    Op copy = op;
    for (std::size_t i = 0; i < copy.inputs.size(); ++i)
      copy.inputs[i] = i == 0 || i == 3 ? held_.at(op.inputs[i]).id : whole(op.inputs[i]);
    if (like.how == Held::How::partial) {
      Buffer summand = plan_.buffer(op.outputs[0]);
      summand.type = DataType::f32;
      like.id = add(std::move(summand), ".part");
    } else {
      like.id = define_columns(op.outputs[0], like);
    }
    like.where = place_of(op);
    copy.outputs = {like.id};
    hold(op.outputs[0], std::move(like));
    sliced_.ops.push_back(std::move(copy));
  }

  /// Each rank computes some of the outputs from whole inputs.
  void to_columns(const Op& op, Held columns) {
    Op copy = op;
    for (BufferId& id : copy.inputs) id = whole(id);
    for (const WeightIndex index : op.weights) cut_outputs(index, columns.own);
    columns.id = define_columns(op.outputs[0], columns);
    columns.where = place_of(op);
    copy.outputs = {columns.id};
    hold(op.outputs[0], std::move(columns));
    sliced_.ops.push_back(std::move(copy));
  }

  /// Each rank multiplies some of the inputs, in fp32.
  void to_summands(const Op& op) {
    const Held x = held_.at(op.inputs[0]);
    for (const WeightIndex index : op.weights) {
      WeightDeclaration& matrix = sliced_.weights.at(static_cast<std::size_t>(index));
      if (is_vector(matrix.id.slot)) continue;  // of the outputs, which are whole
      matrix.part = WeightPart{.outputs = {{0, matrix.rows}},
                               .inputs = x.own.front(),
                               .whole_outputs = matrix.rows,
                               .whole_inputs = matrix.columns};
      matrix.columns = x.own.front().size();
    }
    Op copy = op;
    for (BufferId& id : copy.inputs) id = id == op.inputs[0] ? x.id : whole(id);
    Buffer summand = plan_.buffer(op.outputs[0]);
    summand.type = DataType::f32;
    copy.outputs = {add(std::move(summand), ".part")};
    hold(op.outputs[0], {.how = Held::How::partial, .id = copy.outputs[0], .where = place_of(op)});
    sliced_.ops.push_back(std::move(copy));
  }

  void add_bias(const Op& op) {
    Held x = held_.at(op.inputs[0]);
    if (x.how == Held::How::whole) return unchanged(op);
    if (x.how == Held::How::partial && !x.added) {  // once, behind the sum
      x.biases.push_back(op.weights.front());
      return hold(op.outputs[0], std::move(x));
    }
    check(x.how == Held::How::columns, "a bias behind a residual");
    cut_outputs(op.weights.front(), x.own);
    alike(op);
  }

  /// Works on each column, or each head, by itself: outputs are held like the first input.
  void alike(const Op& op) {
    Held like = held_.at(op.inputs[0]);
    if (like.how == Held::How::partial) return unchanged(op);
    Op copy = op;
    for (BufferId& id : copy.inputs) {
      const Held& other = held_.at(id);
      id = other.how == like.how && other.own == like.own ? other.id : whole(id);
    }
    if (like.how == Held::How::whole) {
      for (BufferId& id : copy.outputs) id = define(id, plan_.buffer(id));
    } else {
      if (op.attributes.heads > 0)
        copy.attributes.heads = static_cast<std::int32_t>(op.attributes.heads * width(like.own) /
                                                          plan_.buffer(op.inputs[0]).shape.back().factor);
      like.id = define_columns(op.outputs[0], like);
      like.where = place_of(op);
      copy.outputs = {like.id};
      hold(op.outputs[0], std::move(like));
    }
    sliced_.ops.push_back(std::move(copy));
  }

  void kv_write(const Op& op) {
    Op copy = op;
    for (std::size_t i = 0; i < copy.inputs.size(); ++i)
      copy.inputs[i] = i < 2 ? held_.at(op.inputs[i]).id : whole(op.inputs[i]);
    copy.outputs = {state(op.outputs[0], op.layer)};
    copy.attributes.kv_heads = local_kv_heads(op.layer);
    sliced_.ops.push_back(std::move(copy));
  }

  void of_heads(const Op& op) {
    const HeadShard& shard = heads_.at(op.layer);
    Op copy = op;
    for (std::size_t i = 0; i < copy.inputs.size(); ++i) {
      const BufferId id = op.inputs[i];
      if (i == 0) copy.inputs[i] = held_.at(id).id;
      else if (plan_.buffer(id).kind == BufferKind::state) copy.inputs[i] = state(id, op.layer);
      else copy.inputs[i] = whole(id);
    }
    const auto heads = static_cast<std::int32_t>(shard.heads.size());
    copy.attributes.heads = heads;
    if (op.kind == OpKind::attention) copy.attributes.kv_heads = local_kv_heads(op.layer);
    Held columns = head_columns(op.layer, false);
    Buffer local = plan_.buffer(op.outputs[0]);
    if (op.kind == OpKind::merge_heads) local.shape.back() = fixed(std::int64_t{heads} * op.attributes.head_dim);
    else local.shape.front() = fixed(heads);
    columns.id = add(std::move(local), "");
    columns.where = place_of(op);
    copy.outputs = {columns.id};
    hold(op.outputs[0], std::move(columns));
    sliced_.ops.push_back(std::move(copy));
  }

  void residual(const Op& op) {
    Held a = held_.at(op.inputs[0]);
    if (a.how != Held::How::partial || a.added) return unchanged(op);
    const Held& b = held_.at(op.inputs[1]);
    if (b.how == Held::How::partial && b.added) {  // the other half of a parallel layer: one sum for both
      const Buffer summand = sliced_.buffer(a.id);
      Op both = op;
      both.region = Region::none;  // no bias, no residual of the layer: nothing to fuse
      both.inputs = {a.id, b.id};
      both.outputs = {add(summand, "+")};
      sliced_.ops.push_back(both);
      a.id = both.outputs[0];
      a.biases.insert(a.biases.begin(), b.biases.begin(), b.biases.end());
      a.added = b.added;
    } else {
      a.added = whole(op.inputs[1]);
    }
    a.where = place_of(op);
    hold(op.outputs[0], std::move(a));
  }

  void best_token(const Op& op) {
    const Held& logits = held_.at(op.inputs[0]);
    check(logits.how == Held::How::columns, "the best token of logits that are not cut");
    Op copy = op;
    copy.inputs = {logits.id};
    copy.attributes.first_token = static_cast<std::int32_t>(logits.own.front().begin);
    copy.outputs = {add(plan_.buffer(op.outputs[0]), ".part")};
    Buffer all = plan_.buffer(op.outputs[0]);
    all.shape.back() = fixed(2 * std::int64_t{where_.ranks});
    sliced_.ops.push_back(copy);
    const BufferId gathered = gather(
        copy.outputs[0], std::vector<std::int64_t>(static_cast<std::size_t>(where_.ranks), 2), add(all, ".all"), op);
    Op best = place_of(op);
    best.kind = OpKind::best_of_ranks;
    best.inputs = {gathered};
    best.outputs = {define(op.outputs[0], plan_.buffer(op.outputs[0]))};
    sliced_.ops.push_back(std::move(best));
  }

  // ---- bringing values together ----

  /// The buffer with all of it.
  BufferId whole(BufferId old) {
    const auto found = held_.find(old);
    if (found == held_.end()) {  // an input, which all ranks are given
      check(plan_.buffer(old).kind == BufferKind::input, "nothing defines ", plan_.buffer(old).name);
      return define(old, plan_.buffer(old));
    }
    const Held held = found->second;
    const Buffer& buffer = plan_.buffer(old);
    if (held.how == Held::How::whole) return held.id;
    if (held.how == Held::How::columns) {
      check(!held.parts.empty(), "columns of ", buffer.name, " stand on several ranks");
      const BufferId all = buffer.kind == BufferKind::output ? add(buffer, "") : add(buffer, ".all");
      hold(old, {.id = gather(held.id, held.parts, all, held.where), .where = held.where});
    } else {
      hold(old, {.id = sum(buffer, held), .where = held.where});
    }
    return held_.at(old).id;
  }

  BufferId gather(BufferId part, const std::vector<std::int64_t>& parts, BufferId all, const Op& where) {
    Op op = place_of(where);
    op.kind = OpKind::all_gather;
    op.inputs = {part};
    op.outputs = {all};
    op.attributes.parts = parts;
    op.attributes.rank = where_.rank;
    sliced_.ops.push_back(std::move(op));
    return all;
  }

  /// Sum over ranks, biases, residual; the last of them writes `result`.
  BufferId sum(const Buffer& result, const Held& held) {
    const Buffer summand = sliced_.buffer(held.id);
    check(held.added || summand.type == result.type, result.name, " is a sum without a residual");
    Op op = place_of(held.where);
    op.kind = OpKind::all_reduce;
    op.inputs = {held.id};
    op.outputs = {held.added ? add(summand, ".sum") : add(result, "")};
    sliced_.ops.push_back(op);
    for (const WeightIndex bias : held.biases) {
      op.kind = OpKind::add_bias;
      op.inputs = op.outputs;
      op.outputs = {add(sliced_.buffer(op.inputs[0]), "+b")};
      op.weights = {bias};
      sliced_.ops.push_back(op);
    }
    if (!held.added) return op.outputs[0];
    op.kind = OpKind::residual;
    op.weights.clear();
    op.inputs = {op.outputs[0], *held.added};
    op.outputs = {add(result, "")};
    sliced_.ops.push_back(op);
    return op.outputs[0];
  }

  // ---- what is whose ----

  [[nodiscard]] static bool can_be_summed(const Held& x, const WeightDeclaration& matrix) {
    if (x.how != Held::How::columns || x.parts.empty() || has_int8_inputs(matrix.format)) return false;
    ShardRange run;
    for (const std::int64_t part : x.parts) {
      run = {run.end, run.end + part};
      if (!can_cut_inputs(matrix.format, matrix.columns, run)) return false;
    }
    return true;
  }

  [[nodiscard]] Held head_columns(std::int32_t layer, bool kv) const {
    Held held{.how = Held::How::columns};
    const std::int64_t dim = head_dim(layer);
    const HeadShard& own = heads_.at(layer);
    if (!kv) {
      held.own = {{own.heads.begin * dim, own.heads.end * dim}};
      for (int rank = 0; rank < where_.ranks; ++rank)
        held.parts.push_back(shard_heads(attentions_.at(layer), rank, where_.ranks).heads.size() * dim);
      return held;
    }
    for (const std::int32_t head : own.kv_heads) {
      if (!held.own.empty() && held.own.back().end == head * dim) held.own.back().end += dim;
      else held.own.push_back({head * dim, (head + 1) * dim});
    }
    return held;
  }
  [[nodiscard]] Held width_columns(std::int64_t outputs) const {
    Held held{.how = Held::How::columns, .own = {shard_width(outputs, where_.rank, where_.ranks)}};
    for (int rank = 0; rank < where_.ranks; ++rank)
      held.parts.push_back(shard_width(outputs, rank, where_.ranks).size());
    return held;
  }
  [[nodiscard]] std::int64_t head_dim(std::int32_t layer) const {
    for (const Op& op : plan_.ops)
      if (op.kind == OpKind::attention && op.layer == layer) return op.attributes.head_dim;
    throw Error(ErrorCode::internal, concat("layer ", layer, " has no attention"));
  }
  [[nodiscard]] std::int32_t local_kv_heads(std::int32_t layer) const {
    return static_cast<std::int32_t>(heads_.at(layer).kv_heads.size());
  }
  [[nodiscard]] static std::int64_t width(const std::vector<ShardRange>& ranges) {
    std::int64_t sum = 0;
    for (const ShardRange& range : ranges) sum += range.size();
    return sum;
  }

  /// Leaves this rank its outputs of a matrix, or elements of a vector. A tied embedding comes twice, cut the same way.
  void cut_outputs(WeightIndex index, const std::vector<ShardRange>& own) {
    const WeightDeclaration& before = plan_.weight(index);
    const bool vector = is_vector(before.id.slot);
    const WeightPart part{.outputs = own,
                          .inputs = {0, vector ? 1 : before.columns},
                          .whole_outputs = vector ? before.columns : before.rows,
                          .whole_inputs = vector ? 1 : before.columns};
    WeightDeclaration& after = sliced_.weights.at(static_cast<std::size_t>(index));
    check(!after.part || after.part == part, to_string(before.id), " is cut in two ways");
    after.part = part;
    (vector ? after.columns : after.rows) = width(own);
  }

  [[nodiscard]] WeightIndex weight_of(const Op& op, Slot slot) const {
    for (const WeightIndex index : op.weights)
      if (plan_.weight(index).id.slot == slot) return index;
    throw Error(ErrorCode::internal, concat("no ", to_string(slot), " in ", to_string(op.kind)));
  }

  // ---- buffers ----

  [[nodiscard]] static Op place_of(const Op& op) {
    return {.kind = op.kind,
            .layer = op.layer,
            .region = op.region,
            .inputs = {},
            .outputs = {},
            .weights = {},
            .attributes = {}};
  }
  void hold(BufferId old, Held held) { held_.insert_or_assign(old, std::move(held)); }

  /// With a suffix it is no output any more: that name is the joined one's.
  BufferId add(Buffer buffer, std::string_view suffix) {
    buffer.name += suffix;
    if (!suffix.empty() && buffer.kind == BufferKind::output) buffer.kind = BufferKind::activation;
    sliced_.buffers.push_back(std::move(buffer));
    return BufferId{static_cast<std::uint32_t>(sliced_.buffers.size() - 1)};
  }
  /// The new plan's whole copy of a buffer.
  BufferId define(BufferId old, const Buffer& buffer) {
    const BufferId id = add(buffer, "");
    hold(old, {.id = id});
    return id;
  }
  BufferId define_columns(BufferId old, const Held& columns) {
    Buffer local = plan_.buffer(old);
    local.shape.back() = fixed(width(columns.own));
    return add(local, local.kind == BufferKind::output ? ".part" : "");
  }
  BufferId state(BufferId old, std::int32_t layer) {
    const auto found = held_.find(old);
    if (found != held_.end()) return found->second.id;
    Buffer local = plan_.buffer(old);
    local.shape.at(2) = fixed(local_kv_heads(layer));
    const BufferId id = add(std::move(local), "");
    hold(old, {.id = id});
    return id;
  }

  const Plan& plan_;
  const TensorRank where_;
  Plan sliced_;
  std::map<BufferId, Held> held_;
  std::map<std::int32_t, HeadShard> heads_;
  std::map<std::int32_t, AttentionSpec> attentions_;
};

}  // namespace

Plan tensor_slicing(const Plan& plan, const TensorRank& where) {
  check(where.rank >= 0 && where.rank < where.ranks, "rank ", where.rank, " of ", where.ranks);
  if (where.ranks == 1) return plan;
  Plan sliced = Slicer(plan, where)();
  verify(sliced);
  return sliced;
}

}  // namespace lamella
