#include "failing_new.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::int64_t> left{-1};  // allocations that succeed before the one that fails; below 0: all succeed

void* allocate(std::size_t bytes) noexcept {
  if (left.load(std::memory_order_relaxed) >= 0 && left.fetch_sub(1, std::memory_order_relaxed) == 0) return nullptr;
  return std::malloc(bytes == 0 ? 1 : bytes);
}

}  // namespace

// Every form that pairs with the others, so that AddressSanitizer sees malloc and free throughout.
void* operator new(std::size_t bytes) {
  if (void* memory = allocate(bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept { return allocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*bytes*/) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t& /*tag*/) noexcept { std::free(memory); }

namespace lamella::testing {

FailingNew::FailingNew(std::size_t before) noexcept { left.store(static_cast<std::int64_t>(before)); }
FailingNew::~FailingNew() { left.store(-1); }
bool FailingNew::failed() const noexcept { return left.load() < 0; }

}  // namespace lamella::testing
