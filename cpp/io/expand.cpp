#include "io/expand.h"

#include "base/check.h"
#include "base/float_bits.h"
#include "io/expand_blocks.h"

namespace lamella::io {
namespace {

void expand_f64(const Byte* in, float* out) noexcept { *out = static_cast<float>(load<double>(in)); }
void expand_f32(const Byte* in, float* out) noexcept { *out = load<float>(in); }
void expand_f16(const Byte* in, float* out) noexcept { *out = load_half(in); }
void expand_bf16(const Byte* in, float* out) noexcept { *out = f32_from_bf16(load<std::uint16_t>(in)); }
void expand_f8_e4m3(const Byte* in, float* out) noexcept { *out = f32_from_f8_e4m3(*in); }
void expand_f8_e5m2(const Byte* in, float* out) noexcept { *out = f32_from_f8_e5m2(*in); }

Expand expansion_of_float(StorageType type) noexcept {
  switch (type) {
    case StorageType::f64: return expand_blocks<1, 8, expand_f64>;
    case StorageType::f32: return expand_blocks<1, 4, expand_f32>;
    case StorageType::f16: return expand_blocks<1, 2, expand_f16>;
    case StorageType::bf16: return expand_blocks<1, 2, expand_bf16>;
    case StorageType::f8_e4m3: return expand_blocks<1, 1, expand_f8_e4m3>;
    case StorageType::f8_e5m2: return expand_blocks<1, 1, expand_f8_e5m2>;
    default: return nullptr;
  }
}

/// The expansion of a type, or nullptr for integers and booleans.
Expand expansion(StorageType type) noexcept {
  for (const auto family : {expansion_of_float, expansion_of_uniform, expansion_of_values, expansion_of_codebook})
    if (const Expand expand = family(type)) return expand;
  return nullptr;
}

}  // namespace

bool expands_to_f32(StorageType type) noexcept { return expansion(type) != nullptr; }

void expand_row_range_to_f32(StorageType type, std::span<const std::byte> in, std::span<float> out) {
  const StorageTraits& layout = traits(type);
  const Expand expand = expansion(type);
  if (expand == nullptr)
    throw Error(ErrorCode::unsupported_model,
                concat("a tensor of type ", layout.name, " where floating-point weights are needed"));
  const std::size_t blocks = in.size() / layout.bytes;
  check(in.size() % layout.bytes == 0 && out.size() == blocks * layout.elements, "expand ", in.size(), " bytes of ",
        layout.name, " to ", out.size(), " elements");
  expand(reinterpret_cast<const Byte*>(in.data()), out.data(), blocks);
}

}  // namespace lamella::io
