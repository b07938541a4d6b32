// Always-on checks of our own invariants, and arithmetic on sizes that cannot wrap.
#pragma once

#include <concepts>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>

#include "lamella/error.h"

namespace lamella {

/// Concatenates its arguments as a stream would print them. For error messages and names, not for hot paths. Errors:
/// std::bad_alloc, which a stream would otherwise keep to itself and return half of the text.
template <typename... Parts>
[[nodiscard]] std::string concat(const Parts&... parts) {
  std::ostringstream out;
  out.exceptions(std::ios::badbit);
  (out << ... << parts);
  return std::move(out).str();
}

/// At most 256 bytes of untrusted text for an error message, control and non-ASCII bytes escaped as \xNN.
[[nodiscard]] std::string quoted(std::string_view text);
/// For std::string arguments, where argument-dependent lookup would otherwise prefer std::quoted, which neither escapes
/// nor cuts.
[[nodiscard]] inline std::string quoted(const std::string& text) { return quoted(std::string_view(text)); }
[[nodiscard]] inline std::string quoted(const char* text) { return quoted(std::string_view(text)); }

/// Throws Error(internal) when `holds` is false. For invariants of ours, in every build; `parts` are the values
/// involved.
template <typename... Parts>
void check(bool holds, const Parts&... parts) {
  if (!holds) [[unlikely]]
    throw Error(ErrorCode::internal, concat("broken invariant: ", parts...));
}

/// Thrown arithmetic for sizes that come from files, or with another code from callers: `what` names the quantity in the
/// error.
template <std::integral T>
[[nodiscard]] T checked_multiply(T a, T b, std::string_view what, ErrorCode code = ErrorCode::invalid_checkpoint) {
  T result;
  if (__builtin_mul_overflow(a, b, &result)) [[unlikely]]
    throw Error(code, concat(what, ": ", a, " x ", b, " overflows"));
  return result;
}

template <std::integral T>
[[nodiscard]] T checked_add(T a, T b, std::string_view what, ErrorCode code = ErrorCode::invalid_checkpoint) {
  T result;
  if (__builtin_add_overflow(a, b, &result)) [[unlikely]]
    throw Error(code, concat(what, ": ", a, " + ", b, " overflows"));
  return result;
}

}  // namespace lamella
