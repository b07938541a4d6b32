#include "cpu/bind.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "plan/cost.h"

namespace lamella::cpu {
namespace {

/// One op's operands by name instead of by number; every function below is one kind of op, or one that several share.
class Binder {
 public:
  Binder(const Plan& plan, const Op& op, const Kernels& kernels, const Places& places)
      : plan_(plan),
        op_(op),
        a_(op.attributes),
        kernels_(kernels.table),
        sbi_gemm_(kernels.options.sbi_gemm),
        places_(places),
        experts_(of_experts()) {}

  BoundOp operator()() const {
    return {.kernel = name(),
            .arithmetic = arithmetic(plan_, op_, kernels_),
            .linear_way = kernels_.linear_way,
            .rows = rows(),
            .experts = experts_,
            .call = call()};
  }

 private:
  /// "avx512/norm_qkv (int8)": the set, the op and the formats of its matrices.
  std::string name() const {
    std::string formats;
    std::vector<WeightFormat> named;
    for (const WeightIndex index : op_.weights) {
      const WeightDeclaration& weight = plan_.weight(index);
      if (is_vector(weight.id.slot) || std::ranges::find(named, weight.format) != named.end()) continue;
      named.push_back(weight.format);
      formats += (formats.empty() ? "" : "; ") + to_string(weight.format);
    }
    const bool common = op_.kind == OpKind::rope_table || op_.kind == OpKind::best_of_ranks ||
                        op_.kind == OpKind::receive || op_.kind == OpKind::send || is_collective(op_.kind);
    return concat(common ? "common" : kernels_.name, "/", to_string(op_.kind),
                  formats.empty() ? "" : concat(" (", formats, ")"));
  }

  AnyCall call() const {
    switch (op_.kind) {
      case OpKind::embed: return embed();
      case OpKind::norm: return norm();
      case OpKind::linear: return linear();
      case OpKind::add_bias:
        return with(
            kernels_.add_bias,
            AddBiasArgs{
                .x = in(0), .bias = only_vector(), .y = out(0), .f32 = is_f32(0), .tokens = 0, .width = out_width()});
      case OpKind::rope_table:
        return with(&rope_table, RopeTableArgs{.positions = ints(0),
                                               .rope_lengths = ints(1),
                                               .rope = &*a_.rope,
                                               .angles = reinterpret_cast<float*>(out(0)),
                                               .tokens = 0});
      case OpKind::rope:
        return with(kernels_.rope, RopeArgs{.x = in(0),
                                            .angles = floats(1),
                                            .y = out(0),
                                            .tokens = 0,
                                            .heads = a_.heads,
                                            .head_dim = a_.head_dim,
                                            .rotary_dim = a_.rope->rotary_dim});
      case OpKind::kv_write:
        return with(kernels_.kv_write,
                    KvWriteArgs{.key = in(0), .value = in(1), .kv = kv(2, op_.outputs.at(0)), .tokens = 0});
      case OpKind::split_heads: return with(kernels_.split_heads, heads_layout());
      case OpKind::merge_heads: return with(kernels_.merge_heads, heads_layout());
      case OpKind::attention: return with(kernels_.attention, attention());
      case OpKind::layout_attention: return with(kernels_.layout_attention, attention());
      case OpKind::activate:
      case OpKind::activate_gated:
        return with(kernels_.activate, ActivateArgs{.x = in(0),
                                                    .up = op_.kind == OpKind::activate_gated ? in(1) : nullptr,
                                                    .y = out(0),
                                                    .activation = a_.activation,
                                                    .f32 = is_f32(0),
                                                    .tokens = 0,
                                                    .width = out_width()});
      case OpKind::residual:
        return with(kernels_.residual, ResidualArgs{.a = in(0),
                                                    .b = in(1),
                                                    .y = out(0),
                                                    .tokens = 0,
                                                    .width = out_width(),
                                                    .a_f32 = plan_.buffer(op_.inputs.at(0)).type == DataType::f32,
                                                    .f32 = is_f32(0)});
      case OpKind::gather_rows:
        return with(
            kernels_.gather_rows,
            GatherRowsArgs{
                .x = in(0), .rows = ints(1), .y = out(0), .y_f32 = is_f32(0), .row_count = 0, .width = out_width()});
      case OpKind::mean_pool:
        return with(kernels_.mean_pool, MeanPoolArgs{.x = in(0),
                                                     .sequences = reinterpret_cast<const SequenceSpan*>(in(1)),
                                                     .y = reinterpret_cast<float*>(out(0)),
                                                     .sequence_count = 0,
                                                     .width = out_width()});
      case OpKind::best_token:
        return with(kernels_.best_token, BestTokenArgs{.logits = floats(0),
                                                       .y = reinterpret_cast<float*>(out(0)),
                                                       .tokens = 0,
                                                       .width = in_width(),
                                                       .first_token = a_.first_token});
      case OpKind::route:
        return with(kernels_.route, RouteArgs{.logits = floats(0),
                                              .routing = routing(),
                                              .chosen = out_ints(0),
                                              .weights = out_floats(1),
                                              .tokens = 0});
      case OpKind::dispatch:
        return with(
            kernels_.dispatch,
            DispatchArgs{
                .x = in(0), .chosen = ints(1), .routing = routing(), .to = placed(), .tokens = 0, .width = in_width()});
      case OpKind::expert_linear:
        return with(kernels_.expert_linear, ExpertLinearArgs{.x = in(0),
                                                             .experts = experts(),
                                                             .linears = experts_.get(),
                                                             .y = out(0),
                                                             .y_f32 = is_f32(0),
                                                             .tokens = 0,
                                                             .sbi_gemm = sbi_gemm_});
      case OpKind::combine: return with(kernels_.combine, combine(op_.inputs.size(), nullptr));
      case OpKind::norm_route: return norm_route();
      case OpKind::expert_up:
        return with(kernels_.expert_up, ExpertUpArgs{.x = in(0),
                                                     .experts = experts(),
                                                     .gates = a_.gated ? experts_.get() + a_.experts->count : nullptr,
                                                     .ups = experts_.get(),
                                                     .activation = a_.activation,
                                                     .y = out(0),
                                                     .tokens = 0,
                                                     .sbi_gemm = sbi_gemm_});
      case OpKind::combine_residual:
        return with(kernels_.combine_residual, combine(op_.inputs.size() - 1, in(op_.inputs.size() - 1)));
      case OpKind::all_reduce:
        return with(&all_reduce, AllReduceArgs{.ranks = ranks(),
                                               .x = in(0),
                                               .y = out(0),
                                               .type = plan_.buffer(op_.outputs.at(0)).type,
                                               .tokens = 0,
                                               .width = out_width()});
      case OpKind::all_gather: return all_gather();
      case OpKind::best_of_ranks:
        return with(&best_of_ranks,
                    BestOfRanksArgs{
                        .x = floats(0), .y = reinterpret_cast<float*>(out(0)), .tokens = 0, .ranks = in_width() / 2});
      case OpKind::receive:
        return with(&receive,
                    ReceiveArgs{.stages = stages(), .y = out(0), .row_bytes = row_bytes(op_.outputs), .tokens = 0});
      case OpKind::send:
        return with(&send, SendArgs{.stages = stages(), .x = in(0), .row_bytes = row_bytes(op_.inputs), .tokens = 0});
      case OpKind::norm_qkv: return norm_qkv();
      case OpKind::norm_mlp_up: return norm_mlp_up();
      case OpKind::output_residual:
        return with(kernels_.output_residual, OutputResidualArgs{.x = in(0),
                                                                 .output = projection(plan_.matrix(op_).id.slot),
                                                                 .residual = in(1),
                                                                 .y = out(0),
                                                                 .tokens = 0,
                                                                 .sbi_gemm = sbi_gemm_});
      case OpKind::bias_residual: return bias_residual();
      case OpKind::greedy_head:
        return with(kernels_.greedy_head,
                    GreedyHeadArgs{.x = in(0),
                                   .head = {.weight = places_.matrix(plan_.matrix(op_).id), .bias = only_vector()},
                                   .y = reinterpret_cast<float*>(out(0)),
                                   .tokens = 0,
                                   .sbi_gemm = sbi_gemm_,
                                   .first_token = a_.first_token});
    }
    throw Error(ErrorCode::internal, concat("no CPU binding for ", to_string(op_.kind)));
  }

  template <typename Arguments>
  AnyCall with(void (*kernel)(const Arguments&, const Worker&), Arguments arguments) const {
    check(kernel != nullptr, "the kernel set ", kernels_.name, " has no ", to_string(op_.kind), " for ",
          to_string(kernels_.dtype));
    return KernelCall<Arguments>{kernel, std::move(arguments)};
  }

  AnyCall embed() const {
    return with(kernels_.embed, EmbedArgs{.token_ids = ints(0),
                                          .positions = ints(1),
                                          .token_types = ints(2),
                                          .token_table = matrix(Slot::token_embedding),
                                          .position_table = matrix(Slot::position_embedding),
                                          .type_table = matrix(Slot::type_embedding),
                                          .y = out(0),
                                          .tokens = 0,
                                          .width = out_width(),
                                          .position_offset = a_.position_offset,
                                          .first_token = a_.first_token});
  }
  comm::Communicator* ranks() const {
    check(places_.groups.tensor != nullptr, "no ranks to meet in ", to_string(op_.kind));
    return places_.groups.tensor;
  }
  comm::Communicator* stages() const {
    check(places_.groups.pipeline != nullptr, "no stages for ", to_string(op_.kind));
    return places_.groups.pipeline;
  }
  std::int64_t row_bytes(const std::vector<BufferId>& one) const {
    const Buffer& buffer = plan_.buffer(one.at(0));
    return buffer.shape.back().factor * static_cast<std::int64_t>(size_of(buffer.type));
  }
  AnyCall all_gather() const {
    const DataType type = plan_.buffer(op_.outputs.at(0)).type;
    AllGatherArgs args{.ranks = ranks(), .x = in(0), .y = out(0), .widths = {}, .tokens = 0};
    for (const std::int64_t part : a_.parts) args.widths.push_back(static_cast<std::size_t>(part) * size_of(type));
    return with(&cpu::all_gather, std::move(args));
  }
  AnyCall bias_residual() const {
    BiasResidualArgs args{
        .x = floats(0), .biases = {}, .residual = in(1), .y = out(0), .tokens = 0, .width = out_width()};
    check(op_.weights.size() <= std::size(args.biases), "bias_residual of ", op_.weights.size(), " biases");
    for (std::size_t i = 0; i < op_.weights.size(); ++i)
      args.biases[i] = places_.vector(plan_.weight(op_.weights[i]).id);
    return with(kernels_.bias_residual, args);
  }
  AnyCall norm() const {
    const Slot slot = plan_.weight(op_.weights.front()).id.slot;
    return with(kernels_.norm, NormArgs{.x = in(0),
                                        .y = out(0),
                                        .weight = vector(slot),
                                        .bias = vector(bias_of(slot)),
                                        .kind = a_.norm.kind,
                                        .eps = a_.norm.eps,
                                        .tokens = 0,
                                        .width = out_width() / std::max(a_.heads, 1)});
  }
  AnyCall linear() const {
    return with(kernels_.linear, LinearArgs{.x = in(0),
                                            .weight = places_.matrix(plan_.matrix(op_).id),
                                            .y = out(0),
                                            .y_f32 = is_f32(0),
                                            .tokens = 0,
                                            .sbi_gemm = sbi_gemm_});
  }
  HeadsLayoutArgs heads_layout() const {
    return {.x = in(0), .y = out(0), .tokens = 0, .heads = a_.heads, .head_dim = a_.head_dim};
  }
  AttentionArgs attention() const {
    return {.query = in(0),
            .y = out(0),
            .kv = kv(1, op_.inputs.at(4)),
            .scale = a_.scale,
            .causal = a_.causal,
            .window = a_.window,
            .tokens = 0,
            .heads = a_.heads};
  }
  AnyCall norm_qkv() const {
    const auto [weight, bias] = region_norm();
    return with(kernels_.norm_qkv, NormQkvArgs{.x = in(0),
                                               .norm = a_.norm.kind,
                                               .norm_weight = weight,
                                               .norm_bias = bias,
                                               .eps = a_.norm.eps,
                                               .query = projection(Slot::query),
                                               .key = projection(Slot::key),
                                               .value = projection(Slot::value),
                                               .angles = a_.rope ? floats(4) : nullptr,
                                               .rotary_dim = a_.rope ? a_.rope->rotary_dim : 0,
                                               .q = out(0),
                                               .kv = kv(1, op_.outputs.at(1)),
                                               .tokens = 0,
                                               .width = in_width(),
                                               .heads = a_.heads,
                                               .sbi_gemm = sbi_gemm_});
  }
  AnyCall norm_mlp_up() const {
    const auto [weight, bias] = region_norm();
    const bool shared = plan_.weight(op_, Slot::shared_up) != nullptr;
    return with(kernels_.norm_mlp_up, NormMlpUpArgs{.x = in(0),
                                                    .norm = a_.norm.kind,
                                                    .norm_weight = weight,
                                                    .norm_bias = bias,
                                                    .eps = a_.norm.eps,
                                                    .gate = projection(shared ? Slot::shared_gate : Slot::mlp_gate),
                                                    .up = projection(shared ? Slot::shared_up : Slot::mlp_up),
                                                    .activation = a_.activation,
                                                    .y = out(0),
                                                    .tokens = 0,
                                                    .sbi_gemm = sbi_gemm_});
  }

  Experts experts() const { return {.offsets = ints(1), .count = a_.experts->count}; }
  Routing routing() const {
    return {.kind = a_.experts->router,
            .experts = a_.experts->count,
            .top_k = a_.experts->top_k,
            .scale = a_.experts->scale,
            .bias = vector(Slot::router_bias)};
  }
  Placed placed() const { return {.rows = out(0), .offsets = out_ints(1), .places = out_ints(2)}; }
  /// `inputs`: the rows', places', weights' and, where there are more, the shared expert's.
  CombineArgs combine(std::size_t inputs, const std::byte* residual) const {
    return {.rows = floats(0),
            .places = ints(1),
            .weights = floats(2),
            .shared = inputs > 3 ? floats(3) : nullptr,
            .shared_gate = inputs > 4 ? floats(4) : nullptr,
            .residual = residual,
            .y = out(0),
            .y_f32 = is_f32(0),
            .tokens = 0,
            .width = out_width(),
            .top_k = plan_.buffer(op_.inputs.at(1)).shape.back().factor};
  }
  AnyCall norm_route() const {
    const auto [weight, bias] = region_norm();
    return with(kernels_.norm_route, NormRouteArgs{.x = in(0),
                                                   .norm = a_.norm.kind,
                                                   .norm_weight = weight,
                                                   .norm_bias = bias,
                                                   .eps = a_.norm.eps,
                                                   .router = matrix(Slot::router),
                                                   .shared_router = matrix(Slot::shared_router),
                                                   .shared_gate = op_.outputs.size() > 4 ? out_floats(4) : nullptr,
                                                   .routing = routing(),
                                                   .to = placed(),
                                                   .weights = out_floats(3),
                                                   .tokens = 0,
                                                   .sbi_gemm = sbi_gemm_});
  }
  /// The op's linears of experts, in its order, each with the bias that stands behind it.
  std::shared_ptr<const WeightAndBias[]> of_experts() const {
    if (op_.kind != OpKind::expert_linear && op_.kind != OpKind::expert_up) return nullptr;
    std::vector<WeightAndBias> linears;
    for (const WeightIndex index : op_.weights) {
      const WeightId& id = plan_.weight(index).id;
      if (is_vector(id.slot)) linears.back().bias = places_.vector(id);
      else linears.push_back({.weight = places_.matrix(id), .bias = nullptr});
    }
    const std::shared_ptr<WeightAndBias[]> kept(new WeightAndBias[linears.size()]);
    std::ranges::copy(linears, kept.get());
    return kept;
  }

  /// positions, sequences and block tables stand at inputs `first`...
  KvLayout kv(std::size_t first, BufferId state) const {
    return {.cache = buffer(state),
            .type = plan_.buffer(state).type,
            .block_tables = ints(first + 2),
            .blocks_per_sequence = 0,
            .sequences = reinterpret_cast<const SequenceSpan*>(in(first + 1)),
            .sequence_count = 0,
            .positions = ints(first),
            .kv_heads = a_.kv_heads,
            .head_dim = a_.head_dim};
  }
  std::pair<const float*, const float*> region_norm() const {
    const Slot slot = plan_.weight(op_, Slot::attention_norm) != nullptr ? Slot::attention_norm : Slot::mlp_norm;
    return {vector(slot), vector(bias_of(slot))};
  }
  WeightAndBias projection(Slot slot) const { return {.weight = matrix(slot), .bias = vector(bias_of(slot))}; }

  /// The op's weight of that slot; no data and nullptr where the op has none.
  PackedMatrix matrix(Slot slot) const {
    const WeightDeclaration* weight = plan_.weight(op_, slot);
    return weight == nullptr ? PackedMatrix{} : places_.matrix(weight->id);
  }
  const float* vector(Slot slot) const {
    const WeightDeclaration* weight = is_vector(slot) ? plan_.weight(op_, slot) : nullptr;
    return weight == nullptr ? nullptr : places_.vector(weight->id);
  }
  /// The op's one vector, whatever its slot; nullptr where it has none.
  const float* only_vector() const {
    for (const WeightIndex index : op_.weights)
      if (const WeightId& id = plan_.weight(index).id; is_vector(id.slot)) return places_.vector(id);
    return nullptr;
  }

  std::byte* buffer(BufferId id) const { return places_.buffer(id); }
  std::byte* in(std::size_t i) const { return buffer(op_.inputs.at(i)); }
  std::byte* out(std::size_t i) const { return buffer(op_.outputs.at(i)); }
  const std::int32_t* ints(std::size_t i) const { return reinterpret_cast<const std::int32_t*>(in(i)); }
  const float* floats(std::size_t i) const { return reinterpret_cast<const float*>(in(i)); }
  std::int32_t* out_ints(std::size_t i) const { return reinterpret_cast<std::int32_t*>(out(i)); }
  float* out_floats(std::size_t i) const { return reinterpret_cast<float*>(out(i)); }
  bool is_f32(std::size_t i) const { return plan_.buffer(op_.outputs.at(i)).type == DataType::f32; }
  std::int64_t out_width() const { return plan_.buffer(op_.outputs.at(0)).shape.back().factor; }
  std::int64_t in_width() const { return plan_.buffer(op_.inputs.at(0)).shape.back().factor; }
  /// Rows of the output: its first dimension, or tokens where heads come first.
  Dim rows() const {
    if (op_.kind == OpKind::dispatch || op_.kind == OpKind::norm_route) return sized(Symbol::tokens);
    const Buffer& buffer = plan_.buffer(op_.outputs.empty() ? op_.inputs.at(0) : op_.outputs.at(0));
    if (op_.kind == OpKind::norm && a_.heads > 0)
      return {buffer.shape.front().symbol, buffer.shape.front().factor * a_.heads};
    const bool by_token = buffer.kind == BufferKind::state || buffer.shape.size() == 3;
    return by_token ? sized(Symbol::tokens) : buffer.shape.front();
  }

  const Plan& plan_;
  const Op& op_;
  const OpAttributes& a_;
  const KernelTable& kernels_;
  bool sbi_gemm_;
  const Places& places_;
  std::shared_ptr<const WeightAndBias[]> experts_;
};

const PackedMatrix& main_matrix(const LinearArgs& args) { return args.weight; }
const PackedMatrix& main_matrix(const NormQkvArgs& args) { return args.query.weight; }
const PackedMatrix& main_matrix(const NormMlpUpArgs& args) { return args.up.weight; }
const PackedMatrix& main_matrix(const OutputResidualArgs& args) { return args.output.weight; }
const PackedMatrix& main_matrix(const GreedyHeadArgs& args) { return args.head.weight; }
const PackedMatrix& main_matrix(const NormRouteArgs& args) { return args.router; }

void resize(GatherRowsArgs& args, std::int64_t rows) { args.row_count = rows; }
void resize(MeanPoolArgs& args, std::int64_t rows) { args.sequence_count = rows; }
template <typename Arguments>
void resize(Arguments& args, std::int64_t rows) {
  args.tokens = rows;
}

}  // namespace

void BoundOp::resize(const StepShape& shape, int workers) {
  std::visit(
      [&](auto& bound) {
        cpu::resize(bound.arguments, evaluate(rows, shape));
        if constexpr (requires { bound.arguments.kv; }) {
          bound.arguments.kv.sequence_count = shape.sequences;
          bound.arguments.kv.blocks_per_sequence = shape.kv_blocks;
        }
        if constexpr (requires { bound.arguments.shared_inputs; })
          bound.arguments.shared_inputs = share_inputs(bound.arguments);
        if constexpr (requires { bound.arguments.split; })
          bound.arguments.split = split_contexts(bound.arguments, shape.kv_tokens, workers);
      },
      call);
}

std::string BoundOp::description() const {
  return std::visit(
      [&](const auto& bound) {
        if constexpr (requires { bound.arguments.shared_inputs; }) {
          const auto& args = bound.arguments;
          if (linear_way == nullptr || args.tokens == 0) return kernel;
          const std::int64_t tile = args.shared_inputs ? shared_tile_tokens : token_tile;
          const LinearWay way = linear_way(main_matrix(args).format, std::min(args.tokens, tile), args.sbi_gemm);
          return concat(kernel, ": ", way.whole_panels ? "SBI-GeMM" : "blocked GeMM", " of ", way.operands, ", ",
                        way.outputs, " x ", way.tokens, args.shared_inputs ? ", inputs made together" : "");
        } else if constexpr (requires { bound.arguments.split; }) {
          return kernel + (bound.arguments.split ? ": contexts split over workers" : "");
        } else {
          return kernel;
        }
      },
      call);
}

int BoundOp::phases() const {
  return std::visit([](const auto& bound) { return cpu::phases(bound.arguments); }, call);
}

void BoundOp::run(const Worker& worker) const {
  std::visit([&](const auto& bound) { bound.kernel(bound.arguments, worker); }, call);
}

Arithmetic arithmetic(const Plan& plan, const Op& op, const KernelTable& kernels) {
  if (kernels.linear_way == nullptr || op.kind == OpKind::embed) return Arithmetic::f32;
  if (op.kind == OpKind::attention || op.kind == OpKind::layout_attention)
    return kernels.attention_arithmetic(plan.buffer(op.inputs.back()).type);
  for (const WeightIndex index : op.weights)
    if (const WeightDeclaration& weight = plan.weight(index); !is_vector(weight.id.slot))
      return kernels.linear_way(weight.format, 1, true).arithmetic;
  return Arithmetic::f32;
}

BoundOp bind(const Plan& plan, const Op& op, const Kernels& kernels, const Places& places) {
  return Binder(plan, op, kernels, places)();
}

}  // namespace lamella::cpu
