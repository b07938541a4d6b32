// The public border: inside, exceptions; outside, Results.
#pragma once

#include <type_traits>

#include "lamella/error.h"

namespace lamella {

/// The exception that is being handled, as an Error: itself where it is one, out_of_memory for std::bad_alloc, and
/// internal for any other. Needs no memory where there is none.
[[nodiscard]] Error border_error() noexcept;

/// What the exception that is being handled says of itself, for messages. Errors: std::bad_alloc.
[[nodiscard]] std::string handled_text();

/// What `body` returns, or the Error of what it throws.
template <typename Body>
[[nodiscard]] auto guarded(Body&& body) noexcept -> Result<std::invoke_result_t<Body>> {
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<Body>>) {
      body();
      return {};
    } else {
      return body();
    }
  } catch (...) {
    return border_error();
  }
}

}  // namespace lamella
