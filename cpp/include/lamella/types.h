// Element types of the engine's own buffers: activations, KV cache and resident weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lamella {

/// The type of an element of a plan buffer or of a resident weight. What checkpoints store is `StorageType` (io).
enum class DataType : std::uint8_t { f32, f16, bf16, i32, i8 };

[[nodiscard]] constexpr std::size_t size_of(DataType type) noexcept {
  if (type == DataType::i8) return 1;
  return type == DataType::bf16 || type == DataType::f16 ? 2 : 4;
}

[[nodiscard]] constexpr std::string_view to_string(DataType type) noexcept {
  switch (type) {
    case DataType::f32: return "float32";
    case DataType::f16: return "float16";
    case DataType::bf16: return "bfloat16";
    case DataType::i32: return "int32";
    case DataType::i8: return "int8";
  }
  return "?";
}

/// How an encoder's rows, one a token, become its result: all of them, their mean, the first, or the model's own
/// pooler.
enum class Pooling : std::uint8_t { none, mean, cls, pooler };

/// Tokens in one block of the KV cache.
inline constexpr std::int64_t kv_block_tokens = 16;

}  // namespace lamella
