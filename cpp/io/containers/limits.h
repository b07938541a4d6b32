// What a checkpoint's description may ask for: promise P3. Far above any real model, far below what hurts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lamella::io::limits {

inline constexpr std::uint64_t header_bytes = 100'000'000;
inline constexpr std::uint64_t index_bytes = 64u << 20;
inline constexpr std::size_t tensors = 1'000'000;
inline constexpr std::size_t name_bytes = 1024;
inline constexpr std::size_t rank = 8;
inline constexpr std::uint64_t dimension = std::uint64_t{1} << 48;
inline constexpr std::size_t shards = 4096;
inline constexpr int nesting = 64;

}  // namespace lamella::io::limits
