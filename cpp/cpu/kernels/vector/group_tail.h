// The ends of a block of codes: what makes numbers of them.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// The scales and offsets of the lanes from some lane on, behind a block's words.
struct GroupTail {
  const std::byte* scales;
  const std::byte* offsets;
  Scale scale;
  Offset offset;
  std::int32_t bias;  // code_bias(format)

  LAMELLA_INLINE F32 load_scale(int v) const {
    if (scale == Scale::f32) return load(reinterpret_cast<const float*>(scales) + std::int64_t{v} * lanes);
    return load(reinterpret_cast<const Fp16*>(scales) + std::int64_t{v} * lanes);
  }
  LAMELLA_INLINE F32 load_minimum(int v) const {
    if (offset != Offset::minimum) return splat(-0.0F);  // which changes no sum, not even one of -0
    return load(reinterpret_cast<const Fp16*>(offsets) + std::int64_t{v} * lanes);
  }
  /// What codes are diminished by: the lane's zero, or the format's bias.
  LAMELLA_INLINE F32 load_zero(int v) const {
    if (offset != Offset::zero) return splat(static_cast<float>(bias));
    using Bytes = std::uint8_t __attribute__((vector_size(lanes)));
    return __builtin_convertvector(load_bits<Bytes>(offsets + std::int64_t{v} * lanes), F32);
  }
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
