#include "memory/resident_weights.h"

#include <algorithm>

#include "base/check.h"

namespace lamella {
namespace {

constexpr std::size_t alignment = 64;

std::size_t element_bytes(const WeightDeclaration& weight, DataType dtype) {
  return size_of(is_vector(weight.id.slot) ? DataType::f32 : dtype);
}

std::size_t byte_size(const WeightDeclaration& weight, DataType dtype) {
  const auto elements = checked_multiply(weight.rows, weight.columns, to_string(weight.id));
  return checked_multiply(static_cast<std::size_t>(elements), element_bytes(weight, dtype), to_string(weight.id));
}

std::size_t aligned(std::size_t bytes) { return checked_add(bytes, alignment - 1, "weights") / alignment * alignment; }

}  // namespace

std::size_t ResidentWeights::planned_bytes(std::span<const WeightDeclaration> declarations, DataType dtype) {
  std::size_t total = 0;
  for (const WeightDeclaration& weight : declarations)
    total = checked_add(total, aligned(byte_size(weight, dtype)), "weights");
  return total;
}

ResidentWeights::ResidentWeights(std::vector<WeightDeclaration> declarations, DataType dtype)
    : declarations_(std::move(declarations)), dtype_(dtype), memory_(planned_bytes(declarations_, dtype), "weights") {
  std::size_t offset = 0;
  for (const WeightDeclaration& weight : declarations_) {
    offsets_.push_back(offset);
    offset += aligned(byte_size(weight, dtype));
  }
}

DataType ResidentWeights::type_of(const WeightDeclaration& weight) const noexcept {
  return is_vector(weight.id.slot) ? DataType::f32 : dtype_;
}

std::span<std::byte> ResidentWeights::bytes(const WeightId& id) const {
  const auto found = std::ranges::find(declarations_, id, &WeightDeclaration::id);
  check(found != declarations_.end(), "no weight ", to_string(id));
  const std::size_t offset = offsets_[static_cast<std::size_t>(found - declarations_.begin())];
  return {memory_.data() + offset, byte_size(*found, dtype_)};
}

}  // namespace lamella
