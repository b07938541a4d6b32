#include "io/tensor_table.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace lamella::io {

const StorageTraits& traits(StorageType type) noexcept {
  // In the order of StorageType. Block sizes are ggml's: 32 elements a block for the plain formats, 256 for the
  // k-quants and most that came after them.
  static constexpr std::array<StorageTraits, 38> table{{
      {"F64", 1, 8},        {"F32", 1, 4},       {"F16", 1, 2},        {"BF16", 1, 2},       {"F8_E4M3", 1, 1},
      {"F8_E5M2", 1, 1},    {"I64", 1, 8},       {"I32", 1, 4},        {"I16", 1, 2},        {"I8", 1, 1},
      {"U64", 1, 8},        {"U32", 1, 4},       {"U16", 1, 2},        {"U8", 1, 1},         {"BOOL", 1, 1},
      {"Q4_0", 32, 18},     {"Q4_1", 32, 20},    {"Q5_0", 32, 22},     {"Q5_1", 32, 24},     {"Q8_0", 32, 34},
      {"Q2_K", 256, 84},    {"Q3_K", 256, 110},  {"Q4_K", 256, 144},   {"Q5_K", 256, 176},   {"Q6_K", 256, 210},
      {"IQ1_S", 256, 50},   {"IQ1_M", 256, 56},  {"IQ2_XXS", 256, 66}, {"IQ2_XS", 256, 74},  {"IQ2_S", 256, 82},
      {"IQ3_XXS", 256, 98}, {"IQ3_S", 256, 110}, {"IQ4_NL", 32, 18},   {"IQ4_XS", 256, 136}, {"TQ1_0", 256, 54},
      {"TQ2_0", 256, 66},   {"MXFP4", 32, 17},   {"NVFP4", 64, 36},
  }};
  static_assert(table.size() == static_cast<std::size_t>(StorageType::nvfp4) + 1);
  return table[static_cast<std::size_t>(type)];
}

const TensorEntry* TensorTable::find(std::string_view name) const noexcept {
  const auto found =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const TensorEntry& entry, std::string_view wanted) { return entry.name < wanted; });
  return found != tensors.end() && found->name == name ? &*found : nullptr;
}

namespace {

std::size_t width(NumberType type) noexcept {
  switch (type) {
    case NumberType::u8:
    case NumberType::i8:
    case NumberType::boolean: return 1;
    case NumberType::u16:
    case NumberType::i16: return 2;
    case NumberType::u32:
    case NumberType::i32:
    case NumberType::f32: return 4;
    case NumberType::u64:
    case NumberType::i64:
    case NumberType::f64: return 8;
  }
  return 1;
}

template <typename Stored, typename Shown>
MetadataValue load(const std::byte* from) {
  Stored stored;
  std::memcpy(&stored, from, sizeof stored);
  return {static_cast<Shown>(stored)};
}

}  // namespace

std::size_t MetadataNumbers::size() const noexcept { return bytes.size() / width(type); }

MetadataValue number_at(const MetadataNumbers& numbers, std::size_t index) {
  check(index < numbers.size(), "metadata element ", index, " of ", numbers.size());
  const std::byte* from = numbers.bytes.data() + index * width(numbers.type);
  switch (numbers.type) {
    case NumberType::u8: return load<std::uint8_t, std::uint64_t>(from);
    case NumberType::u16: return load<std::uint16_t, std::uint64_t>(from);
    case NumberType::u32: return load<std::uint32_t, std::uint64_t>(from);
    case NumberType::u64: return load<std::uint64_t, std::uint64_t>(from);
    case NumberType::i8: return load<std::int8_t, std::int64_t>(from);
    case NumberType::i16: return load<std::int16_t, std::int64_t>(from);
    case NumberType::i32: return load<std::int32_t, std::int64_t>(from);
    case NumberType::i64: return load<std::int64_t, std::int64_t>(from);
    case NumberType::f32: return load<float, double>(from);
    case NumberType::f64: return load<double, double>(from);
    case NumberType::boolean: return load<std::uint8_t, bool>(from);
  }
  check(false, "metadata number type ", static_cast<int>(numbers.type));
  return {};
}

}  // namespace lamella::io
