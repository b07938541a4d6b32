#include "plan/plan.h"

#include <algorithm>
#include <charconv>
#include <iomanip>
#include <limits>
#include <sstream>

#include "base/check.h"

namespace lamella {

StepShape StepShape::uniform(std::int64_t sequences, std::int64_t new_tokens, std::int64_t context) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (sequences < 1 || new_tokens < 1 || context < new_tokens || context > most / sequences)
    throw Error(ErrorCode::invalid_argument,
                concat("a step of ", sequences, " sequences with ", new_tokens, " new tokens each at context ", context,
                       "; expected at least one of each, a context that holds the new tokens, and at most ", most,
                       " tokens of context in all"));
  // Below 2^62. The i-th new token (from 1) sees context - new_tokens + i positions.
  const std::int64_t attended = new_tokens * (context - new_tokens) + new_tokens * (new_tokens + 1) / 2;
  return {.tokens = sequences * new_tokens,
          .sequences = sequences,
          .rows = sequences,
          .kv_blocks = (context + kv_block_tokens - 1) / kv_block_tokens,
          .attended = sequences * attended,
          .kv_tokens = sequences * context};
}

std::int64_t evaluate(const Dim& dim, const StepShape& shape) {
  const auto times = [&](std::int64_t size) {
    return checked_multiply(dim.factor, size, "a dimension", ErrorCode::invalid_argument);
  };
  switch (dim.symbol) {
    case Symbol::one: return dim.factor;
    case Symbol::tokens: return times(shape.tokens);
    case Symbol::sequences: return times(shape.sequences);
    case Symbol::rows: return times(shape.rows);
    case Symbol::kv_blocks: return times(shape.kv_blocks);
  }
  return 0;
}

std::string to_string(const Dim& dim) {
  if (dim.symbol == Symbol::one) return std::to_string(dim.factor);
  constexpr std::string_view letters = "1TSRB";
  const std::string letter(1, letters[static_cast<std::size_t>(dim.symbol)]);
  return dim.factor == 1 ? letter : concat(dim.factor, "*", letter);
}

std::string_view to_string(OpKind kind) noexcept {
  switch (kind) {
    case OpKind::embed: return "embed";
    case OpKind::norm: return "norm";
    case OpKind::linear: return "linear";
    case OpKind::add_bias: return "add_bias";
    case OpKind::rope_table: return "rope_table";
    case OpKind::rope: return "rope";
    case OpKind::kv_write: return "kv_write";
    case OpKind::split_heads: return "split_heads";
    case OpKind::attention: return "attention";
    case OpKind::merge_heads: return "merge_heads";
    case OpKind::activate: return "activate";
    case OpKind::activate_gated: return "activate_gated";
    case OpKind::residual: return "residual";
    case OpKind::route: return "route";
    case OpKind::dispatch: return "dispatch";
    case OpKind::expert_linear: return "expert_linear";
    case OpKind::combine: return "combine";
    case OpKind::gather_rows: return "gather_rows";
    case OpKind::mean_pool: return "mean_pool";
    case OpKind::best_token: return "best_token";
    case OpKind::all_reduce: return "all_reduce";
    case OpKind::all_gather: return "all_gather";
    case OpKind::best_of_ranks: return "best_of_ranks";
    case OpKind::receive: return "receive";
    case OpKind::send: return "send";
    case OpKind::norm_qkv: return "norm_qkv";
    case OpKind::layout_attention: return "layout_attention";
    case OpKind::norm_mlp_up: return "norm_mlp_up";
    case OpKind::output_residual: return "output_residual";
    case OpKind::bias_residual: return "bias_residual";
    case OpKind::greedy_head: return "greedy_head";
    case OpKind::norm_route: return "norm_route";
    case OpKind::expert_up: return "expert_up";
    case OpKind::combine_residual: return "combine_residual";
  }
  return "?";
}

std::string_view to_string(Region region) noexcept {
  switch (region) {
    case Region::none: return "";
    case Region::qkv: return "qkv";
    case Region::attention: return "attention";
    case Region::mlp_up: return "mlp_up";
    case Region::output: return "output";
    case Region::head: return "head";
    case Region::route: return "route";
    case Region::experts: return "experts";
    case Region::combine: return "combine";
  }
  return "?";
}

const WeightDeclaration* Plan::weight(const Op& op, Slot slot) const noexcept {
  for (const WeightIndex index : op.weights)
    if (weights[static_cast<std::size_t>(index)].id.slot == slot) return &weights[static_cast<std::size_t>(index)];
  return nullptr;
}

const WeightDeclaration& Plan::matrix(const Op& op) const {
  const WeightDeclaration* found = nullptr;
  for (const WeightIndex index : op.weights) {
    if (is_vector(weight(index).id.slot)) continue;
    check(found == nullptr, to_string(op.kind), " of layer ", op.layer, " has several matrices");
    found = &weight(index);
  }
  check(found != nullptr, to_string(op.kind), " of layer ", op.layer, " has no matrix");
  return *found;
}

const Buffer* Plan::find(std::string_view name) const noexcept {
  const auto found = std::ranges::find(buffers, name, &Buffer::name);
  return found == buffers.end() ? nullptr : &*found;
}

std::string block_table_name(std::size_t group) {
  return group == 0 ? std::string("block_tables") : concat("block_tables.", group);
}

std::optional<std::size_t> block_table_group(std::string_view name) noexcept {
  constexpr std::string_view first = "block_tables";
  if (!name.starts_with(first)) return std::nullopt;
  if (name.size() == first.size()) return 0;
  std::size_t group = 0;
  const char* const end = name.data() + name.size();
  const auto [read_to, error] = std::from_chars(name.data() + first.size() + 1, end, group);
  return name[first.size()] == '.' && error == std::errc() && read_to == end ? std::optional(group) : std::nullopt;
}

std::int64_t element_count(const Buffer& buffer, const StepShape& shape) {
  std::int64_t count = 1;
  for (const Dim& dim : buffer.shape)
    count = checked_multiply(count, evaluate(dim, shape), buffer.name, ErrorCode::invalid_argument);
  return count;
}

std::int64_t byte_count(const Buffer& buffer, const StepShape& shape) {
  return checked_multiply(element_count(buffer, shape), static_cast<std::int64_t>(size_of(buffer.type)), buffer.name,
                          ErrorCode::invalid_argument);
}

namespace {

template <typename Print>
std::string bracketed(const std::vector<Dim>& shape, Print print) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += concat(i == 0 ? "" : ", ", print(shape[i]));
  return text + "]";
}

std::string operands(const Plan& plan, const std::vector<BufferId>& ids) {
  std::string text;
  for (const BufferId id : ids) {
    if (!text.empty()) text += ", ";
    text += concat(plan.buffer(id).name, shape_text(plan.buffer(id)));
  }
  return text;
}

}  // namespace

std::string shape_text(const Buffer& buffer) {
  return bracketed(buffer.shape, [](const Dim& dim) { return to_string(dim); });
}

std::string shape_text(const Buffer& buffer, const StepShape& shape) {
  return bracketed(buffer.shape, [&](const Dim& dim) { return evaluate(dim, shape); });
}

std::string to_table(const Plan& plan) {
  std::ostringstream out;
  for (const Op& op : plan.ops) {
    const std::string layer = op.layer < 0 ? "-" : std::to_string(op.layer);
    out << std::left << std::setw(4) << layer << std::setw(10) << to_string(op.region) << std::setw(17)
        << to_string(op.kind) << operands(plan, op.inputs) << " -> " << operands(plan, op.outputs);
    std::string_view comma = "  | ";
    for (const WeightIndex index : op.weights) {
      const WeightId& id = plan.weight(index).id;
      if (id.expert > 0) continue;  // stands for all experts' of the slot
      out << comma << to_string(id.slot) << (id.expert == 0 ? concat(" x", op.attributes.experts->count) : "");
      comma = ", ";
    }
    out << "\n";
  }
  return std::move(out).str();
}

Plan without_unused_buffers(Plan plan) {
  constexpr auto unused = static_cast<std::uint32_t>(-1);
  std::vector<std::uint32_t> renumbered(plan.buffers.size(), unused);
  std::vector<Buffer> kept;
  const auto keep = [&](BufferId& id) {
    std::uint32_t& number = renumbered.at(static_cast<std::size_t>(id));
    if (number == unused) {
      number = static_cast<std::uint32_t>(kept.size());
      kept.push_back(std::move(plan.buffers[static_cast<std::size_t>(id)]));
    }
    id = BufferId{number};
  };
  for (Op& op : plan.ops) {
    std::ranges::for_each(op.inputs, keep);
    std::ranges::for_each(op.outputs, keep);
  }
  plan.buffers = std::move(kept);
  return plan;
}

}  // namespace lamella
