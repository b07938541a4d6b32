#include "counting_new.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

// Each block carries its size in front, in the 16 bytes that keep the alignment.
constexpr std::size_t header = 16;
std::atomic<std::size_t> live{0}, peak{0};

}  // namespace

void* operator new(std::size_t size) {
  auto* block = static_cast<std::byte*>(std::malloc(size + header));
  if (block == nullptr) throw std::bad_alloc();
  *reinterpret_cast<std::size_t*>(block) = size;
  const std::size_t now = live.fetch_add(size) + size;
  for (std::size_t seen = peak.load(); seen < now && !peak.compare_exchange_weak(seen, now);) {
  }
  return block + header;
}
void operator delete(void* pointer) noexcept {
  if (pointer == nullptr) return;
  std::byte* block = static_cast<std::byte*>(pointer) - header;
  live -= *reinterpret_cast<std::size_t*>(block);
  std::free(block);
}
void operator delete(void* pointer, std::size_t /*size*/) noexcept { operator delete(pointer); }

namespace lamella::testing {

HeapPeak::HeapPeak() noexcept : before_(live) { peak.store(before_); }
std::size_t HeapPeak::bytes() const noexcept { return peak - before_; }

}  // namespace lamella::testing
