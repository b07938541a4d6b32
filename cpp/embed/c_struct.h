// Structs of the C interface, which grow at their end from version to version.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "base/check.h"

namespace lamella {

/// The struct_size that the caller has set. Errors: invalid_argument for one that cannot be right.
template <typename Struct>
[[nodiscard]] std::size_t size_of_struct(const Struct& given, std::string_view name) {
  static_assert(std::is_trivially_copyable_v<Struct> && offsetof(Struct, struct_size) == 0);
  constexpr std::size_t most = 1U << 16;  // no version comes near it; memory that was not initialised does
  if (given.struct_size < sizeof given.struct_size || given.struct_size > most)
    throw Error(ErrorCode::invalid_argument,
                concat(name, ".struct_size is ", given.struct_size, "; expected sizeof(", name, ")"));
  return given.struct_size;
}

/// The caller's struct as this library knows it: what the caller does not know is as in `defaults`. Errors: those of
/// size_of_struct(); invalid_argument for a field beyond our version that is not 0.
template <typename Struct>
[[nodiscard]] Struct taken(const Struct& given, const Struct& defaults, std::string_view name) {
  const std::size_t size = size_of_struct(given, name);
  const auto* bytes = reinterpret_cast<const char*>(&given);
  if (size > sizeof(Struct) && std::any_of(bytes + sizeof(Struct), bytes + size, [](char byte) { return byte != 0; }))
    throw Error(ErrorCode::invalid_argument, concat(name, " has fields set that this version does not know: it has ",
                                                    size, " bytes, the library's has ", sizeof(Struct)));
  Struct result = defaults;
  std::memcpy(&result, &given, std::min(size, sizeof(Struct)));
  return result;
}

/// Writes as much of `value` as the caller's struct, of `size` bytes, has room for; what lies beyond our version is
/// set to 0.
template <typename Struct>
void given_back(Struct value, Struct* caller, std::size_t size) {
  value.struct_size = size;
  auto* bytes = reinterpret_cast<char*>(caller);
  std::memcpy(bytes, &value, std::min(size, sizeof(Struct)));
  if (size > sizeof(Struct)) std::memset(bytes + sizeof(Struct), 0, size - sizeof(Struct));
}

}  // namespace lamella
