// The one layout of K and V in the cache, for every type in which they are stored.
//
// A block of 16 slots (tokens) is, for K and for V and each KV head, a plane of its own. As with packed weights
// (memory/panels.h) a 32-bit word holds M neighbours (M = 1, 2, 4 for 32, 16 and 8 bits; fp16, which is widened by an
// instruction of its own, stands alone), so that a vector lane reads whole words and no sum runs across lanes:
//
//   K  [head_dim / M][slot][M]   a lane is a key: scores of 16 keys are one vector, with one chain along the head
//   V  [slot / M][head_dim][M]   a lane is a place of the head: its sum is one chain along the slots
//
// The head is padded to a multiple of 16. K's last word is filled up with zeros; what else pads, and slots never
// written, may hold anything.
//
// int8: a token's K, and its V, is rounded once for each head, when it is written: scale = absmax / 127 and code =
// round(x * (127 / absmax)), ties to even (scale and all codes zero where absmax is below 2^-100; scale NaN where x
// holds NaN or infinity). A plane ends with its slots' scales in fp32; bytes hold code + 128, as in weights.
//
// All arithmetic here is always inlined: kernels of all instruction sets include this file.
#pragma once

#include <cstdint>

#include "lamella/types.h"

namespace lamella {

/// Neighbours in a lane's word: M.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t kv_word_elements(DataType type) noexcept {
  return type == DataType::i8 ? 4 : type == DataType::bf16 ? 2 : 1;
}

[[nodiscard, gnu::always_inline]] constexpr std::int64_t kv_padded(std::int64_t head_dim) noexcept {
  return (head_dim + 15) / 16 * 16;
}
/// Elements that a token takes in a plane, those that its scale amounts to included.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t kv_row_elements(DataType type,
                                                                         std::int64_t head_dim) noexcept {
  return kv_padded(head_dim) + (type == DataType::i8 ? 4 : 0);
}

[[nodiscard, gnu::always_inline]] constexpr std::int64_t kv_plane_bytes(DataType type, std::int64_t head_dim) noexcept {
  return kv_block_tokens * kv_row_elements(type, head_dim) * static_cast<std::int64_t>(size_of(type));
}
/// K and V of one token and one layer in all heads' planes.
[[nodiscard]] constexpr std::int64_t kv_token_bytes(DataType type, std::int64_t kv_heads,
                                                    std::int64_t head_dim) noexcept {
  return 2 * kv_heads * (kv_plane_bytes(type, head_dim) / kv_block_tokens);
}
/// Where the scales of a plane of int8 begin, in bytes.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t kv_scales_offset(std::int64_t head_dim) noexcept {
  return kv_block_tokens * kv_padded(head_dim);
}

/// Where element `d` of the key in `slot` stands in its plane.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t key_element(std::int64_t word_elements, std::int64_t slot,
                                                                     std::int64_t d) noexcept {
  return (d / word_elements * kv_block_tokens + slot) * word_elements + d % word_elements;
}
/// Where element `d` of the value in `slot` stands in its plane.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t value_element(std::int64_t word_elements,
                                                                       std::int64_t head_dim, std::int64_t slot,
                                                                       std::int64_t d) noexcept {
  return (slot / word_elements * kv_padded(head_dim) + d) * word_elements + slot % word_elements;
}

}  // namespace lamella
