// The activations of an MLP, plain and gated.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/functions.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

template <Activation Kind>
LAMELLA_INLINE F32 activation(F32 x) {
  if constexpr (Kind == Activation::gelu) {
    return times_normal_share(x);
  } else if constexpr (Kind == Activation::gelu_tanh) {
    // (1 + tanh u) / 2 is 1 / (1 + e^-2u).
    return x / (1.0F + exponential(-1.59576912F * (x + 0.044715F * (x * x * x))));
  } else if constexpr (Kind == Activation::relu) {
    return x < 0.0F ? F32{} : x;  // a NaN stays one
  } else if constexpr (Kind == Activation::silu) {
    return x / (1.0F + exponential(-x));
  } else if constexpr (Kind == Activation::tanh) {
    return hyperbolic_tangent(x);
  } else if constexpr (Kind == Activation::quick_gelu) {
    return x / (1.0F + exponential(-1.702F * x));
  } else {
    return x;
  }
}

template <Activation Kind>
struct ActivationOf {
  static constexpr Activation value = Kind;
};

/// Calls body(ActivationOf<kind>) for the kind that is known at run time: once a tile, not once a vector.
template <typename Body>
LAMELLA_INLINE void with_activation(Activation kind, Body body) {
  switch (kind) {
    case Activation::none: return body(ActivationOf<Activation::none>{});
    case Activation::gelu: return body(ActivationOf<Activation::gelu>{});
    case Activation::gelu_tanh: return body(ActivationOf<Activation::gelu_tanh>{});
    case Activation::relu: return body(ActivationOf<Activation::relu>{});
    case Activation::silu: return body(ActivationOf<Activation::silu>{});
    case Activation::tanh: return body(ActivationOf<Activation::tanh>{});
    case Activation::quick_gelu: return body(ActivationOf<Activation::quick_gelu>{});
  }
}

/// y = activation(x), times `up` where there is one, for `rows` rows `stride` and `y_stride` apart. A single definition for
/// every activation and operand type. Many rows a call: an activation begins with up to fifty constants, too many for a
/// row of 64.
template <Activation Kind, typename X, typename Y>
[[gnu::noinline]] void activate_rows(const X* x, const X* up, std::int64_t stride, Y* y, std::int64_t y_stride,
                                     std::int64_t rows, std::int64_t width) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const X* values = x + row * stride;
    const X* factors = up == nullptr ? nullptr : up + row * stride;
    Y* results = y + row * y_stride;
    constexpr std::int64_t step = std::int64_t{2} * lanes;
    std::int64_t begin = 0;
    for (; begin + step <= width; begin += step) {
      F32 two[2];
#pragma GCC unroll 2
      for (int n = 0; n < 2; ++n) two[n] = activation<Kind>(load(values + begin + std::int64_t{n} * lanes));
#pragma GCC unroll 2
      for (int n = 0; n < 2; ++n) {
        if (factors != nullptr) two[n] *= load(factors + begin + std::int64_t{n} * lanes);
        store(results + begin + std::int64_t{n} * lanes, two[n]);
      }
    }
    each_vector(width - begin, [&](std::int64_t i, int count) LAMELLA_BODY {
      F32 v = activation<Kind>(load(values + begin + i, count));
      if (factors != nullptr) v *= load(factors + begin + i, count);
      store(results + begin + i, v, count);
    });
  }
}

/// Shares the elements of all tokens, so that one token's row is work for every worker.
template <typename T>
void activate_as(const ActivateArgs& a, const Worker& worker) {
  constexpr std::int64_t group = 64;
  const std::int64_t elements = a.tokens * a.width;
  const Range groups = share((elements + group - 1) / group, worker);
  const std::int64_t begin = groups.begin * group, end = smaller(groups.end * group, elements);
  if (begin >= end) return;
  const T* up = static_cast<const T*>(a.up);
  with_activation(a.activation, [&](auto kind) LAMELLA_BODY {
    activate_rows<decltype(kind)::value>(static_cast<const T*>(a.x) + begin, up == nullptr ? nullptr : up + begin, 0,
                                         static_cast<T*>(a.y) + begin, 0, 1, end - begin);
  });
}

template <typename T>
void activate(const ActivateArgs& a, const Worker& worker) {
  if (a.f32) activate_as<float>(a, worker);
  else activate_as<T>(a, worker);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
