#include <cmath>
#include <numbers>

#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {
namespace {

double activation(Activation kind, double x) {
  switch (kind) {
    case Activation::none: return x;
    case Activation::gelu: return 0.5 * x * (1.0 + std::erf(x / std::numbers::sqrt2));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::relu: return x < 0.0 ? 0.0 : x;
    case Activation::silu: return x / (1.0 + std::exp(-x));
    case Activation::tanh: return std::tanh(x);
    case Activation::quick_gelu: return x / (1.0 + std::exp(-1.702 * x));
  }
  return x;
}

}  // namespace

void activate(const ActivateArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t i = 0; i < a.width; ++i) {
      const double factor = a.up == nullptr ? 1.0 : row_of(a.up, t, a.width)[i];
      row_of(a.y, t, a.width)[i] = static_cast<float>(activation(a.activation, row_of(a.x, t, a.width)[i]) * factor);
    }
}

}  // namespace lamella::cpu::reference
