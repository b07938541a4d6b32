// Large memory with an owner: weights, KV pools and the plan's activations all live in Allocations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lamella {

/// Zero-filled, page-aligned memory from the operating system, returned to it by the destructor. Pages cost nothing
/// until they are first touched, so that a KV pool sized for the worst case stays small. Moves, never copies.
class Allocation {
 public:
  Allocation() = default;
  /// Errors: out_of_memory naming `purpose`, the bytes asked for, the memory unused and the process's own limit.
  Allocation(std::size_t bytes, std::string_view purpose);
  ~Allocation();
  Allocation(Allocation&& other) noexcept;
  Allocation& operator=(Allocation&& other) noexcept;
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lamella
