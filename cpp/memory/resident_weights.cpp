#include "memory/resident_weights.h"

#include "base/check.h"

namespace lamella {
namespace {

constexpr std::size_t alignment = 64;

std::size_t byte_size(const WeightDeclaration& weight) {
  const std::string name = to_string(weight.id);
  // Before the layout computes with them: its own arithmetic does not look for overflow.
  const std::int64_t padded_rows =
      is_vector(weight.id.slot) ? 1 : checked_add(weight.rows, tile_outputs - 1, name) / tile_outputs * tile_outputs;
  // No format takes more than four bytes an input, a word and its scales a row.
  const std::int64_t most = checked_multiply(checked_add(weight.columns, std::int64_t{8}, name), std::int64_t{4}, name);
  static_cast<void>(checked_multiply(padded_rows, most, name));
  if (is_vector(weight.id.slot)) return static_cast<std::size_t>(weight.columns) * sizeof(float);
  validate(weight.format);
  return static_cast<std::size_t>(PanelLayout(weight.format, weight.rows, weight.columns).total_bytes());
}

std::size_t aligned(std::size_t bytes) { return checked_add(bytes, alignment - 1, "weights") / alignment * alignment; }

}  // namespace

std::size_t ResidentWeights::planned_bytes(std::span<const WeightDeclaration> declarations) {
  std::size_t total = 0;
  for (const WeightDeclaration& weight : declarations)
    total = checked_add(total, aligned(byte_size(weight)), "weights");
  return total;
}

ResidentWeights::ResidentWeights(std::vector<WeightDeclaration> declarations)
    : declarations_(std::move(declarations)), memory_(planned_bytes(declarations_), "weights") {
  std::size_t offset = 0;
  for (const WeightDeclaration& weight : declarations_) {
    indices_.emplace(weight.id, offsets_.size());
    offsets_.push_back(offset);
    offset += aligned(byte_size(weight));
  }
}

std::size_t ResidentWeights::index_of(const WeightId& id) const {
  const auto found = indices_.find(id);
  check(found != indices_.end(), "no weight ", to_string(id));
  return found->second;
}

std::span<std::byte> ResidentWeights::bytes(const WeightId& id) const {
  const std::size_t index = index_of(id);
  return {memory_.data() + offsets_[index], byte_size(declarations_[index])};
}

PackedMatrix ResidentWeights::matrix(const WeightId& id) const {
  const std::size_t index = index_of(id);
  const WeightDeclaration& weight = declarations_[index];
  check(!is_vector(id.slot), to_string(id), " is a vector");
  return {.data = memory_.data() + offsets_[index],
          .outputs = weight.rows,
          .inputs = weight.columns,
          .format = weight.format};
}

const float* ResidentWeights::vector(const WeightId& id) const {
  check(is_vector(id.slot), to_string(id), " is a matrix");
  return reinterpret_cast<const float*>(memory_.data() + offsets_[index_of(id)]);
}

}  // namespace lamella
