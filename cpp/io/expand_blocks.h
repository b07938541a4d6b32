// What the files that expand stored blocks share. Each function there expands one block (or one element) and is called
// in a loop over them. Inner loops have constant trip counts and touch bytes at unit stride, which gcc turns into vector
// code; scales are computed outside of them. The layouts are ggml's, fields in the order in which the functions read
// them. `d` is the block's fp16 scale, `m` its minimum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/float_bits.h"
#include "io/tensor_table.h"

namespace lamella::io {

using Byte = std::uint8_t;

/// Expands so many blocks.
using Expand = void (*)(const Byte* in, float* out, std::size_t blocks) noexcept;

/// The expansion of a type, or nullptr where the type is none of the family.
[[nodiscard]] Expand expansion_of_uniform(StorageType type) noexcept;  // Q4_0 to Q6_K, TQ1_0, TQ2_0
[[nodiscard]] Expand expansion_of_values(StorageType type) noexcept;  // IQ4_NL, IQ4_XS, MXFP4, NVFP4
[[nodiscard]] Expand expansion_of_codebook(StorageType type) noexcept;  // IQ1_* to IQ3_*

template <typename T>
T load(const Byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline float load_half(const Byte* from) noexcept { return f32_from_f16(load<std::uint16_t>(from)); }

/// Nibble `index` of packed ones, the low half of a byte first.
constexpr int nibble(const Byte* packed, std::size_t index) noexcept {
  return packed[index / 2] >> (index % 2 * 4) & 15;
}

template <int elements, int bytes, void (*expand)(const Byte*, float*) noexcept>
void expand_blocks(const Byte* __restrict in, float* __restrict out, std::size_t blocks) noexcept {
  for (std::size_t block = 0; block < blocks; ++block) expand(in + block * bytes, out + block * elements);
}

}  // namespace lamella::io
