// Parts of vectors, element by element: for instruction sets that have no masks.
#pragma once

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// The first `count` elements of a vector that is filled up with zeros.
template <typename T>
[[gnu::always_inline]] inline void load_first(T* vector, const T* from, int count) {
  __builtin_memset(vector, 0, sizeof(F32) / sizeof(float) * sizeof(T));
  for (int i = 0; i < count; ++i) vector[i] = from[i];
}

/// The first `count` elements of a vector, to memory.
template <typename T>
[[gnu::always_inline]] inline void store_first(T* to, const T* vector, int count) {
  for (int i = 0; i < count; ++i) to[i] = vector[i];
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
