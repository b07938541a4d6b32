#include "checkpoints.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>

#include "base/float_bits.h"

namespace lamella::testing {
namespace {

/// Blocks whose first two halves (scale and minimum, where the type has them) are small numbers; floats of a normal
/// distribution.
std::string random_elements(io::StorageType type, std::uint64_t blocks, std::mt19937_64& random) {
  const io::StorageTraits& layout = io::traits(type);
  std::normal_distribution<float> normal;
  std::string bytes(blocks * layout.bytes, '\0');
  for (std::size_t i = 0; i < bytes.size(); i += layout.bytes) {
    const float value = normal(random);
    if (layout.elements > 1) {
      for (std::size_t b = 0; b < layout.bytes; ++b) bytes[i + b] = static_cast<char>(random());
      for (const std::size_t b : {1U, 3U}) bytes[i + b] &= 0x2f;
    } else if (layout.bytes == 4) {
      std::memcpy(&bytes[i], &value, 4);
    } else {
      const std::uint16_t half = type == io::StorageType::f16 ? f16_from_f32(value) : bf16_from_f32(value);
      std::memcpy(&bytes[i], &half, 2);
    }
  }
  return bytes;
}

std::int32_t part_of(Slot slot) {
  switch (slot) {
    case Slot::query:
    case Slot::query_bias: return 0;
    case Slot::key:
    case Slot::key_bias: return 1;
    case Slot::value:
    case Slot::value_bias: return 2;
    default: return -1;
  }
}

}  // namespace

RandomCheckpoint::RandomCheckpoint(const std::filesystem::path& path, const ModelSpec& spec, std::uint64_t seed,
                                   std::vector<io::StorageType> types)
    : path_(path), spec_(spec), seed_(seed), types_(std::move(types)) {
  for (const WeightDeclaration& weight : declare_weights(spec)) {
    WeightSource source{.weight = to_string(weight.id), .tensor = to_string(weight.id)};
    const std::int32_t part = part_of(weight.id.slot);
    if (spec.family == "gpt2" || spec.family == "bert") source.transposed = weight.id.layer >= 0;
    if (part >= 0 && (spec.family == "gpt2" || spec.family == "gpt_neox")) {
      source.tensor = "layers." + std::to_string(weight.id.layer) + (is_vector(weight.id.slot) ? ".qkv_bias" : ".qkv");
      source.parts = 3, source.part = part;
      if (spec.family == "gpt_neox") source.groups = spec.layers.at(0).attention.heads;
    }
    if (spec.family == "llama" && !is_vector(weight.id.slot) && (part == 0 || part == 1))
      source.rotary_pair_heads = part == 0 ? spec.layers.at(0).attention.heads : spec.layers.at(0).attention.kv_heads;
    if (is_vector(weight.id.slot)) source.transposed = false;
    add(weight, source);
  }
  std::ranges::sort(tensors_.tensors, {}, &io::TensorEntry::name);
  std::ofstream(path, std::ios::binary) << bytes_;
  bytes_ = {};
  reopen();
}

void RandomCheckpoint::reopen() { tensors_.files = {std::make_shared<io::File>(path_)}; }

void RandomCheckpoint::add(const WeightDeclaration& weight, WeightSource source) {
  const bool vector = is_vector(weight.id.slot);
  const std::int64_t rows = (vector ? weight.columns : weight.rows) * source.parts;
  const bool known = std::ranges::count(tensors_.tensors, source.tensor, &io::TensorEntry::name) != 0;
  if (!known) {
    const std::int64_t stored_row = source.transposed ? rows : weight.columns;
    io::StorageType type = vector ? io::StorageType::f32 : types_[recipe_.size() % types_.size()];
    if (stored_row % io::traits(type).elements != 0) type = io::StorageType::f32;
    std::mt19937_64 random(seed_ + std::hash<std::string>()(source.tensor));
    const std::int64_t elements = vector ? rows : rows * weight.columns;
    const std::string bytes =
        random_elements(type, static_cast<std::uint64_t>(elements / io::traits(type).elements), random);
    std::vector<std::int64_t> shape = {rows};
    if (!vector) shape = source.transposed ? std::vector{weight.columns, rows} : std::vector{rows, weight.columns};
    tensors_.tensors.push_back(
        {.name = source.tensor, .offset = bytes_.size(), .bytes = bytes.size(), .type = type, .shape = shape});
    bytes_ += bytes;
  }
  recipe_.push_back(std::move(source));
}

}  // namespace lamella::testing
