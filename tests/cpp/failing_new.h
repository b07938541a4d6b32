// Memory that runs out when a test says so: programs that link failing_new.cpp have an operator new of their own.
#pragma once

#include <cstddef>

namespace lamella::testing {

/// While it lives, the allocation through operator new that comes after `before` others throws std::bad_alloc; all
/// threads count, the ones after it succeed again. Objects of the test's own count as well: keep the scope tight.
class FailingNew {
 public:
  explicit FailingNew(std::size_t before) noexcept;
  ~FailingNew();
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;

  /// Whether the allocation was reached, and failed.
  [[nodiscard]] bool failed() const noexcept;
};

}  // namespace lamella::testing
