// Rotary position embedding, applied from a table of angles.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Rotates the first rotary_dim elements of one head, in place. `angles`: cos, then sin, rotary_dim / 2 each. Products
/// are rounded before they are added, as in transformers.
template <typename T>
LAMELLA_INLINE void rotate(T* head, const float* angles, std::int64_t rotary_dim) {
  const std::int64_t half = rotary_dim / 2;
  each_vector(half, [&](std::int64_t i, int count) LAMELLA_BODY {
    const F32 a = load(head + i, count), b = load(head + half + i, count);
    const F32 cosine = load(angles + i, count), sine = load(angles + half + i, count);
    store(head + i, a * cosine - b * sine, count);
    store(head + half + i, b * cosine + a * sine, count);
  });
}

template <typename T>
void rope(const RopeArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens * a.heads, worker);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const T* x = static_cast<const T*>(a.x) + unit * a.head_dim;
    T* y = static_cast<T*>(a.y) + unit * a.head_dim;
    if (x != y) __builtin_memcpy(y, x, static_cast<std::size_t>(a.head_dim) * sizeof(T));
    rotate(y, a.angles + unit / a.heads * a.rotary_dim, a.rotary_dim);
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
