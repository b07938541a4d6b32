#include "plan/verify.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/check.h"
#include "memory/kv_layout.h"
#include "plan/cost.h"

namespace lamella {
namespace {

/// Checks one op's operands against its kind. All checks go through `expect`, which says where it failed.
class OpVerifier {
 public:
  OpVerifier(const Plan& plan, std::size_t number) : plan_(plan), op_(plan.ops[number]), number_(number) {}

  void operator()() const {
    switch (op_.kind) {
      case OpKind::embed: return embed();
      case OpKind::norm:
        return arity(1, 1), same(in(0), out(0)), numbers(out(0)),
               vectors(width(in(0)) / std::max(op_.attributes.heads, 1));
      case OpKind::linear: return arity(1, 1), projection(in(0), out(0)), numbers(in(0)), numbers_or_f32(out(0));
      case OpKind::add_bias: return arity(1, 1), same(in(0), out(0)), numbers_or_f32(out(0)), vectors(width(in(0)));
      case OpKind::rope_table:
        return arity(2, 1), shape(in(0), {tokens()}), shape(in(1), {tokens()}),
               shape(out(0), {tokens(), fixed(rotary_dim())}), type(in(0), DataType::i32), type(in(1), DataType::i32),
               type(out(0), DataType::f32);
      case OpKind::rope: return arity(2, 1), rotary();
      case OpKind::kv_write:
        return arity(5, 1), kv_operands(2), rows_of(in(0), kv_width()), rows_of(in(1), kv_width()), numbers(in(0)),
               numbers(in(1)), state(out(0));
      case OpKind::split_heads:
        return arity(1, 1), rows_of(in(0), query_width()), shape(out(0), head_major()), alike(in(0), out(0));
      case OpKind::attention:
        return arity(5, 1), kv_operands(1), shape(in(0), head_major()), same(in(0), out(0)), numbers(out(0)),
               state(in(4));
      case OpKind::merge_heads:
        return arity(1, 1), shape(in(0), head_major()), rows_of(out(0), query_width()), alike(in(0), out(0));
      case OpKind::activate: return arity(1, 1), same(in(0), out(0)), numbers_or_f32(out(0));
      case OpKind::activate_gated: return arity(2, 1), same(in(0), in(1)), same(in(0), out(0)), numbers_or_f32(out(0));
      case OpKind::residual: return arity(2, 1), sum();
      case OpKind::route: return arity(1, 2), route();
      case OpKind::dispatch: return arity(2, 3), table(in(1)), numbers(in(0)), dispatched(in(0), in(1).shape[1].factor);
      case OpKind::expert_linear: return arity(2, 1), expert_rows(), numbers_or_f32(out(0)), of_experts();
      case OpKind::combine: return combine(0);
      case OpKind::gather_rows:
        return arity(2, 1), shape(in(1), {sized(Symbol::rows)}),
               shape(out(0), {sized(Symbol::rows), in(0).shape.back()}), numbers(in(0)), type(in(1), DataType::i32),
               numbers_or_f32(out(0));
      case OpKind::mean_pool:
        return arity(2, 1), shape(in(1), sequence_table()),
               shape(out(0), {sized(Symbol::sequences), in(0).shape.back()}), numbers(in(0)),
               type(in(1), DataType::i32), type(out(0), DataType::f32);
      case OpKind::best_token:
        return arity(1, 1), type(in(0), DataType::f32), shape(in(0), {sized(Symbol::rows), in(0).shape.back()}),
               best(out(0));
      case OpKind::all_reduce: return arity(1, 1), same(in(0), out(0)), numbers_or_f32(out(0));
      case OpKind::all_gather: return arity(1, 1), gathered(), numbers_or_f32(out(0));
      case OpKind::best_of_ranks:
        return arity(1, 1), type(in(0), DataType::f32), best(out(0)),
               shape(in(0), {sized(Symbol::rows), in(0).shape.back()}),
               expect(width(in(0)) % 2 == 0, "wants pairs in ", in(0).name);
      case OpKind::receive: return arity(0, 1), rows_of(out(0), width(out(0))), numbers_or_f32(out(0));
      case OpKind::send: return arity(1, 0), rows_of(in(0), width(in(0))), numbers_or_f32(in(0));
      case OpKind::norm_qkv: return norm_qkv();
      case OpKind::layout_attention:
        return arity(5, 1), kv_operands(1), rows_of(in(0), query_width()), same(in(0), out(0)), numbers(out(0)),
               state(in(4));
      case OpKind::norm_mlp_up: return arity(1, 1), norm_mlp_up();
      case OpKind::output_residual:
        return arity(2, 1), projection(in(0), out(0)), same(in(1), out(0)), numbers(in(0)), numbers(out(0)),
               vectors(width(out(0)));
      case OpKind::bias_residual:
        return arity(2, 1), type(in(0), DataType::f32), sum(), numbers(out(0)), vectors(width(out(0)));
      case OpKind::greedy_head: return arity(1, 1), greedy_head();
      case OpKind::norm_route: return norm_route();
      case OpKind::expert_up: return arity(2, 1), expert_rows(), numbers(out(0)), of_experts();
      case OpKind::combine_residual: return combine(1);
    }
    expect(false, "has no rule in verify");
  }

  template <typename... Parts>
  void expect(bool holds, const Parts&... parts) const {
    check(holds, "op ", number_, " (", to_string(op_.kind), ", layer ", op_.layer, ") ", parts...);
  }

 private:
  const Buffer& in(std::size_t i) const { return plan_.buffer(op_.inputs.at(i)); }
  const Buffer& out(std::size_t i) const { return plan_.buffer(op_.outputs.at(i)); }
  static Dim tokens() { return sized(Symbol::tokens); }
  static std::vector<Dim> sequence_table() { return {sized(Symbol::sequences), fixed(2)}; }
  std::int64_t rotary_dim() const { return op_.attributes.rope ? op_.attributes.rope->rotary_dim : 0; }
  std::int64_t query_width() const { return std::int64_t{op_.attributes.heads} * op_.attributes.head_dim; }
  std::int64_t kv_width() const { return std::int64_t{op_.attributes.kv_heads} * op_.attributes.head_dim; }
  std::vector<Dim> head_major() const {
    return {fixed(op_.attributes.heads), tokens(), fixed(op_.attributes.head_dim)};
  }
  std::int64_t width(const Buffer& buffer) const {
    expect(!buffer.shape.empty() && buffer.shape.back().symbol == Symbol::one, "wants a fixed width of ", buffer.name);
    return buffer.shape.back().factor;
  }

  void arity(std::size_t inputs, std::size_t outputs) const {
    expect(op_.inputs.size() == inputs && op_.outputs.size() == outputs, "has ", op_.inputs.size(), " inputs and ",
           op_.outputs.size(), " outputs, not ", inputs, " and ", outputs);
  }
  void shape(const Buffer& buffer, const std::vector<Dim>& expected) const {
    expect(buffer.shape == expected, "wants another shape of ", buffer.name, ", which is ", shape_text(buffer),
           "; expected ", shape_text(Buffer{.name = {}, .kind = {}, .type = {}, .shape = expected}));
  }
  void same(const Buffer& a, const Buffer& b) const {
    shape(b, a.shape);
    alike(a, b);
  }
  void alike(const Buffer& a, const Buffer& b) const {
    expect(a.type == b.type, "mixes the types of ", a.name, " and ", b.name);
  }
  void type(const Buffer& buffer, DataType expected) const {
    expect(buffer.type == expected, "wants ", to_string(expected), " in ", buffer.name, ", which is ",
           to_string(buffer.type));
  }
  /// The plan's own element type, which kernels are chosen for, or fp32 where they can write it too.
  void numbers(const Buffer& buffer) const { type(buffer, dtype_of(plan_)); }
  void numbers_or_f32(const Buffer& buffer) const {
    if (buffer.type != DataType::f32) numbers(buffer);
  }
  void rows_of(const Buffer& buffer, std::int64_t row_width) const { shape(buffer, {tokens(), fixed(row_width)}); }

  /// All weights of the op that are vectors have `size` elements.
  void vectors(std::int64_t size) const {
    for (const WeightIndex index : op_.weights) {
      const WeightDeclaration& weight = plan_.weight(index);
      if (is_vector(weight.id.slot))
        expect(weight.rows == 1 && weight.columns == size, "wants ", size, " elements of ", to_string(weight.id),
               ", which has ", weight.rows, " x ", weight.columns);
    }
  }
  void projection(const Buffer& x, const Buffer& y) const {
    const WeightDeclaration& weight = plan_.matrix(op_);
    expect(x.shape.size() == 2 && y.shape.size() == 2 && x.shape[0] == y.shape[0], "wants rows of ", x.name, " and ",
           y.name);
    expect(weight.columns == width(x) && weight.rows == width(y), "multiplies ", shape_text(x), " by ",
           to_string(weight.id), " [", weight.rows, ", ", weight.columns, "] into ", shape_text(y));
  }
  /// Weight `slot` maps a row of `inputs` to `outputs`; its bias, where the op has one, fits.
  void matrix(Slot slot, std::int64_t inputs, std::int64_t outputs) const {
    const WeightDeclaration* weight = plan_.weight(op_, slot);
    expect(weight != nullptr, "lacks its weight ", to_string(slot));
    expect(weight->columns == inputs && weight->rows == outputs, "wants ", to_string(slot), " [", outputs, ", ", inputs,
           "], found [", weight->rows, ", ", weight->columns, "]");
    const WeightDeclaration* bias = plan_.weight(op_, bias_of(slot));
    if (bias != nullptr) expect(bias->columns == outputs, "wants ", outputs, " elements of ", to_string(bias->id));
  }
  void norm_weights(std::int64_t size) const {
    for (const Slot slot : {Slot::attention_norm, Slot::attention_norm_bias, Slot::mlp_norm, Slot::mlp_norm_bias})
      if (const WeightDeclaration* weight = plan_.weight(op_, slot))
        expect(weight->columns == size, "wants ", size, " elements of ", to_string(weight->id));
  }

  void state(const Buffer& buffer) const {
    expect(buffer.kind == BufferKind::state, "wants a KV state, not ", buffer.name);
    expect(buffer.type != DataType::i32, "wants numbers in ", buffer.name, ", which is ", to_string(buffer.type));
    expect(buffer.shape.size() == 5 && buffer.shape[2] == fixed(op_.attributes.kv_heads) &&
               buffer.shape[4] == fixed(kv_row_elements(buffer.type, op_.attributes.head_dim)),
           "wants another KV state than ", buffer.name, " ", shape_text(buffer));
  }
  /// positions, sequences, block_tables at inputs `first`...
  void kv_operands(std::size_t first) const {
    shape(in(first), {tokens()});
    shape(in(first + 1), sequence_table());
    shape(in(first + 2), {sized(Symbol::sequences), sized(Symbol::kv_blocks)});
    for (std::size_t i = first; i < first + 3; ++i) type(in(i), DataType::i32);
  }

  void embed() const {
    arity(3, 1);
    for (std::size_t i = 0; i < 3; ++i) shape(in(i), {tokens()}), type(in(i), DataType::i32);
    expect(out(0).type != DataType::i32, "writes numbers into ", out(0).name, ", which is ", to_string(out(0).type));
    numbers(out(0));
    expect(plan_.weight(op_, Slot::token_embedding) != nullptr, "lacks the token embedding");
    for (const WeightIndex index : op_.weights)
      expect(plan_.weight(index).columns == width(out(0)), "wants tables of ", width(out(0)), " columns");
  }
  void rotary() const {
    rows_of(in(0), std::int64_t{op_.attributes.heads} * op_.attributes.head_dim);
    same(in(0), out(0));
    numbers(out(0));
    shape(in(1), {tokens(), fixed(rotary_dim())});
    type(in(1), DataType::f32);
    expect(rotary_dim() > 0 && rotary_dim() <= op_.attributes.head_dim, "rotates ", rotary_dim(), " of ",
           op_.attributes.head_dim);
  }
  void norm_qkv() const {
    const bool rope = op_.attributes.rope.has_value();
    arity(rope ? 5 : 4, 2);
    kv_operands(1);
    if (rope) shape(in(4), {tokens(), fixed(rotary_dim())}), type(in(4), DataType::f32);
    rows_of(out(0), query_width());
    numbers(in(0));
    numbers(out(0));
    state(out(1));
    norm_weights(width(in(0)));
    matrix(Slot::query, width(in(0)), query_width());
    matrix(Slot::key, width(in(0)), kv_width());
    matrix(Slot::value, width(in(0)), kv_width());
  }
  void norm_mlp_up() const {
    numbers(in(0));
    numbers(out(0));
    norm_weights(width(in(0)));
    const bool shared = plan_.weight(op_, Slot::shared_up) != nullptr;
    matrix(shared ? Slot::shared_up : Slot::mlp_up, width(in(0)), width(out(0)));
    if (op_.attributes.gated) matrix(shared ? Slot::shared_gate : Slot::mlp_gate, width(in(0)), width(out(0)));
  }

  const ExpertsSpec& experts() const {
    expect(op_.attributes.experts.has_value(), "knows no experts");
    return *op_.attributes.experts;
  }
  /// Of a token's choices.
  void table(const Buffer& buffer) const {
    type(buffer, DataType::i32);
    shape(buffer, {tokens(), fixed(experts().top_k)});
  }
  void choice_weights(const Buffer& buffer) const {
    type(buffer, DataType::f32);
    shape(buffer, {tokens(), fixed(experts().top_k)});
  }
  void offsets(const Buffer& buffer) const {
    type(buffer, DataType::i32);
    shape(buffer, {fixed(std::int64_t{experts().count} + 1)});
  }
  void route() const {
    type(in(0), DataType::f32);
    rows_of(in(0), experts().count);
    table(out(0));
    choice_weights(out(1));
    vectors(experts().count);
  }
  /// rows, offsets and places, the first outputs, of x.
  void dispatched(const Buffer& x, std::int64_t top_k) const {
    rows_of(x, width(x));
    shape(out(0), {{Symbol::tokens, top_k}, x.shape.back()});
    alike(x, out(0));
    offsets(out(1));
    table(out(2));
  }
  void norm_route() const {
    const bool gated = plan_.weight(op_, Slot::shared_router) != nullptr;
    arity(1, gated ? 5 : 4);
    numbers(in(0));
    dispatched(in(0), experts().top_k);
    choice_weights(out(3));
    norm_weights(width(in(0)));
    matrix(Slot::router, width(in(0)), experts().count);
    if (!gated) return;
    matrix(Slot::shared_router, width(in(0)), 1);
    type(out(4), DataType::f32);
    rows_of(out(4), 1);
  }
  void expert_rows() const {
    numbers(in(0));
    offsets(in(1));
    const Dim rows{Symbol::tokens, experts().top_k};
    shape(in(0), {rows, fixed(width(in(0)))});
    shape(out(0), {rows, fixed(width(out(0)))});
  }
  /// The matrices of every expert in turn, a bias behind each or none; where there is a gate, its own too.
  void of_experts() const {
    const std::int64_t count = experts().count, linears = op_.attributes.gated ? 2 : 1;
    std::int64_t matrices = 0, biases = 0;
    for (const WeightIndex index : op_.weights) {
      const WeightDeclaration& weight = plan_.weight(index);
      const bool bias = is_vector(weight.id.slot);
      expect(weight.id.expert == (bias ? matrices - 1 : matrices) % count, "has ", to_string(weight.id),
             " out of its order");
      expect(bias ? weight.columns == width(out(0)) : weight.columns == width(in(0)) && weight.rows == width(out(0)),
             "multiplies ", shape_text(in(0)), " by ", to_string(weight.id), " [", weight.rows, ", ", weight.columns,
             "] into ", shape_text(out(0)));
      (bias ? biases : matrices) += 1;
    }
    expect(matrices == linears * count && (biases == 0 || biases == matrices), "has ", matrices, " matrices and ",
           biases, " biases for ", count, " experts");
  }
  /// `others` inputs stand behind combine's own.
  void combine(std::size_t others) const {
    const std::size_t inputs = op_.inputs.size() - others;
    expect(inputs >= 3 && inputs <= 5, "has ", inputs, " inputs");
    arity(inputs + others, 1);
    const std::int64_t columns = width(out(0)), top_k = in(1).shape.back().factor;
    type(in(0), DataType::f32);
    shape(in(0), {{Symbol::tokens, top_k}, fixed(columns)});
    type(in(1), DataType::i32);
    shape(in(1), {tokens(), fixed(top_k)});
    type(in(2), DataType::f32);
    shape(in(2), in(1).shape);
    for (std::size_t i = 3; i < inputs; ++i) type(in(i), DataType::f32), rows_of(in(i), i == 3 ? columns : 1);
    rows_of(out(0), columns);
    if (others == 0) return numbers_or_f32(out(0));
    numbers(out(0));
    same(last_input(), out(0));
  }
  const Buffer& last_input() const { return plan_.buffer(op_.inputs.back()); }

  /// a + b in b's type.
  void sum() const {
    shape(in(0), in(1).shape);
    same(in(1), out(0));
    numbers_or_f32(out(0));
    if (in(0).type != DataType::f32) alike(in(0), in(1));
  }
  void gathered() const {
    const std::vector<std::int64_t>& parts = op_.attributes.parts;
    const auto rank = static_cast<std::size_t>(op_.attributes.rank);
    expect(rank < parts.size(), "is of rank ", rank, " of ", parts.size());
    expect(in(0).shape.size() == 2 && out(0).shape.size() == 2 && in(0).shape[0] == out(0).shape[0], "wants rows of ",
           in(0).name, " and ", out(0).name);
    alike(in(0), out(0));
    expect(width(in(0)) == parts[rank] && width(out(0)) == std::accumulate(parts.begin(), parts.end(), std::int64_t{0}),
           "gathers ", shape_text(in(0)), " into ", shape_text(out(0)));
  }
  void best(const Buffer& buffer) const {
    type(buffer, DataType::f32);
    shape(buffer, {sized(Symbol::rows), fixed(2)});
  }
  void greedy_head() const {
    const WeightDeclaration& head = plan_.matrix(op_);
    numbers(in(0));
    shape(in(0), {sized(Symbol::rows), fixed(head.columns)});
    vectors(head.rows);
    best(out(0));
  }

  const Plan& plan_;
  const Op& op_;
  std::size_t number_;
};

/// Definition before use, over the whole plan.
void verify_flow(const Plan& plan) {
  std::vector<bool> defined(plan.buffers.size(), false), used(plan.buffers.size(), false);
  std::set<std::pair<std::int32_t, BufferId>> written_states;
  for (std::size_t number = 0; number < plan.ops.size(); ++number) {
    const Op& op = plan.ops[number];
    const OpVerifier at(plan, number);
    for (const BufferId id : op.inputs) {
      const auto i = static_cast<std::size_t>(id);
      at.expect(i < plan.buffers.size(), "reads buffer ", i, " of ", plan.buffers.size());
      const Buffer& buffer = plan.buffers[i];
      used[i] = true;
      if (buffer.kind == BufferKind::input) continue;
      if (buffer.kind == BufferKind::state) {
        at.expect(written_states.contains({op.layer, id}), "reads ", buffer.name, " before its layer has written it");
      } else {
        at.expect(defined[i], "reads ", buffer.name, " before it is defined");
      }
    }
    for (const BufferId id : op.outputs) {
      const auto i = static_cast<std::size_t>(id);
      at.expect(i < plan.buffers.size(), "writes buffer ", i, " of ", plan.buffers.size());
      const Buffer& buffer = plan.buffers[i];
      at.expect(buffer.kind != BufferKind::input, "writes the input ", buffer.name);
      if (buffer.kind == BufferKind::state) {
        written_states.insert({op.layer, id});
        used[i] = defined[i] = true;
        continue;
      }
      at.expect(!defined[i], "defines ", buffer.name, " a second time");
      defined[i] = true;
    }
    for (const WeightIndex index : op.weights)
      at.expect(static_cast<std::size_t>(index) < plan.weights.size(), "uses weight ", static_cast<std::size_t>(index),
                " of ", plan.weights.size());
  }
  for (std::size_t i = 0; i < plan.buffers.size(); ++i) {
    const Buffer& buffer = plan.buffers[i];
    check(buffer.kind == BufferKind::output ? defined[i] : used[i], "buffer ", buffer.name, " is ",
          buffer.kind == BufferKind::output ? "never defined" : "never used");
    if (buffer.kind == BufferKind::output)
      check(buffer.type == DataType::f32, "the output ", buffer.name, " is ", to_string(buffer.type), ", not float32");
  }
}

void verify_order(const Plan& plan) {
  std::set<std::pair<std::int32_t, Region>> closed;
  bool left_layers = false;
  for (std::size_t number = 0; number < plan.ops.size(); ++number) {
    const Op& op = plan.ops[number];
    const OpVerifier at(plan, number);
    if (number == 0) continue;
    const Op& before = plan.ops[number - 1];
    if (op.layer < 0) {
      left_layers = left_layers || before.layer >= 0;
    } else {
      at.expect(!left_layers && op.layer >= before.layer, "stands after layer ", before.layer,
                left_layers ? " and after the head" : "");
    }
    if (before.region == Region::none || (before.layer == op.layer && before.region == op.region)) continue;
    // A layer has two output regions (attention's and the MLP's); the others are closed for good.
    if (before.region != Region::output) closed.insert({before.layer, before.region});
    at.expect(!closed.contains({op.layer, op.region}), "comes back to region ", to_string(op.region));
  }
}

}  // namespace

void verify(const Plan& plan) {
  verify_flow(plan);
  verify_order(plan);
  for (std::size_t number = 0; number < plan.ops.size(); ++number) OpVerifier(plan, number)();
}

void verify_together(std::span<const Plan> ranks) {
  const auto collectives = [](const Plan& plan) {
    std::vector<const Op*> found;
    for (const Op& op : plan.ops)
      if (is_collective(op.kind)) found.push_back(&op);
    return found;
  };
  const std::vector<const Op*> first = collectives(ranks.front());
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const std::vector<const Op*> own = collectives(ranks[rank]);
    check(own.size() == first.size(), "rank ", rank, " has ", own.size(), " collectives, rank 0 ", first.size());
    for (std::size_t i = 0; i < own.size(); ++i) {
      const Op &a = *first[i], &b = *own[i];
      const Buffer &x = ranks.front().buffer(a.outputs.at(0)), &y = ranks[rank].buffer(b.outputs.at(0));
      check(a.kind == b.kind && a.layer == b.layer && x.type == y.type && x.shape == y.shape, "collective ", i,
            " of rank ", rank, " is ", to_string(b.kind), " of layer ", b.layer, " into ", y.name, shape_text(y),
            ", that of rank 0 ", to_string(a.kind), " of layer ", a.layer, " into ", x.name, shape_text(x));
      if (b.kind != OpKind::all_gather) continue;
      check(b.attributes.parts == a.attributes.parts && b.attributes.parts.size() == ranks.size() &&
                static_cast<std::size_t>(b.attributes.rank) == rank,
            "collective ", i, " of rank ", rank, " gathers other parts than that of rank 0");
    }
  }
}

}  // namespace lamella
