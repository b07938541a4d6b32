// Errors of the C interface: a number, and a message that the thread keeps.
#pragma once

#include <string_view>

#include "base/check.h"
#include "embed/border.h"
#include "lamella/c.h"
#include "lamella/error.h"

namespace lamella {

/// The number that C callers know the code by.
[[nodiscard]] lamella_code c_code(ErrorCode code) noexcept;

/// Keeps the message for lamella_last_error() and returns the code.
lamella_code c_failed(const Error& error) noexcept;

/// LAMELLA_OK, or what becomes of the exception that `body` throws.
template <typename Body>
lamella_code c_guarded(Body&& body) noexcept {
  try {
    body();
    return LAMELLA_OK;
  } catch (...) {
    return c_failed(border_error());
  }
}

/// What the pointer points to. Errors: invalid_argument for null.
template <typename T>
T& not_null(T* pointer, std::string_view name) {
  if (pointer == nullptr) throw Error(ErrorCode::invalid_argument, concat(name, " is NULL"));
  return *pointer;
}

}  // namespace lamella
