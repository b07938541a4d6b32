// How much a piece of work allocates: programs that link counting_new.cpp have an operator new of their own.
#pragma once

#include <cstddef>

namespace lamella::testing {

/// The most bytes, over all threads, that have been allocated through operator new and not freed at any moment since
/// this was made, less what was allocated when it was. One at a time.
class HeapPeak {
 public:
  HeapPeak() noexcept;
  [[nodiscard]] std::size_t bytes() const noexcept;

 private:
  std::size_t before_;
};

}  // namespace lamella::testing
