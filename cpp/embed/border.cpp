#include "embed/border.h"

#include <exception>
#include <new>
#include <string>

#include "base/check.h"

namespace lamella {
namespace {

// Made when the program starts, so that memory which has run out can be reported without any; copies share its text. A
// program without memory for it could not start.
// NOLINTNEXTLINE(bugprone-throwing-static-initialization)
const Error no_memory(ErrorCode::out_of_memory, "the host ran out of memory");

}  // namespace

std::string handled_text() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception of a type that is not the standard library's";
  }
}

Error border_error() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return no_memory;
  } catch (...) {
    try {
      return {ErrorCode::internal, concat("unexpected: ", handled_text())};
    } catch (...) {
      return no_memory;
    }
  }
}

}  // namespace lamella
