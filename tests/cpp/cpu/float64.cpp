#include "float64.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lamella::cpu::testing {

Values norm64(NormKind kind, const Values& x, const Values& weight, const Values& bias, double eps,
              std::int64_t width) {
  if (kind == NormKind::none) return x;
  const auto n = static_cast<std::size_t>(width);
  Values y(x.size());
  for (std::size_t row = 0; row < x.size(); row += n) {
    double mean = 0.0, variance = 0.0;
    for (std::size_t i = 0; i < n; ++i)
      mean += kind == NormKind::layer_norm ? x[row + i] / static_cast<double>(n) : 0.0;
    for (std::size_t i = 0; i < n; ++i) variance += std::pow(x[row + i] - mean, 2) / static_cast<double>(n);
    for (std::size_t i = 0; i < n; ++i)
      y[row + i] = (x[row + i] - mean) / std::sqrt(variance + eps) * weight[i] + (bias.empty() ? 0.0 : bias[i]);
  }
  return y;
}

double activation64(Activation kind, double x) {
  const double sqrt_half = std::sqrt(0.5), sqrt_2_over_pi = std::sqrt(2.0 / std::acos(-1.0));
  switch (kind) {
    case Activation::none: return x;
    case Activation::gelu: return x * 0.5 * std::erfc(-x * sqrt_half);
    case Activation::gelu_tanh: return x * 0.5 * (1.0 + std::tanh(sqrt_2_over_pi * (x + 0.044715 * std::pow(x, 3))));
    case Activation::relu: return std::max(x, 0.0);
    case Activation::silu: return x / (1.0 + std::exp(-x));
    case Activation::tanh: return std::tanh(x);
    case Activation::quick_gelu: return x / (1.0 + std::exp(-1.702 * x));
  }
  return std::nan("");
}

Values rope64(const Values& x, const Values& angles, std::int64_t heads, std::int64_t head_dim,
              std::int64_t rotary_dim) {
  Values y = x;
  const std::int64_t units = static_cast<std::int64_t>(x.size()) / head_dim, half = rotary_dim / 2;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    const double* cosine = angles.data() + unit / heads * rotary_dim;
    const double *from = x.data() + unit * head_dim, *sine = cosine + half;
    double* to = y.data() + unit * head_dim;
    for (std::int64_t i = 0; i < half; ++i) {
      to[i] = from[i] * cosine[i] - from[half + i] * sine[i];
      to[half + i] = from[i] * sine[i] + from[half + i] * cosine[i];
    }
  }
  return y;
}

Values attend64(const double* query, const double* keys, const double* values, std::int64_t length, std::int64_t dim,
                double scale) {
  Values weights(static_cast<std::size_t>(length)), y(static_cast<std::size_t>(dim));
  double largest = -std::numeric_limits<double>::infinity(), total = 0.0;
  for (std::int64_t j = 0; j < length; ++j) {
    double dot = 0.0;
    for (std::int64_t d = 0; d < dim; ++d) dot += query[d] * keys[j * dim + d];
    weights[static_cast<std::size_t>(j)] = dot * scale;
    largest = std::max(largest, dot * scale);
  }
  for (double& weight : weights) total += weight = std::exp(weight - largest);
  for (std::int64_t j = 0; j < length; ++j) {
    const double weight = weights[static_cast<std::size_t>(j)] / total;
    for (std::int64_t d = 0; d < dim; ++d) y[static_cast<std::size_t>(d)] += weight * values[j * dim + d];
  }
  return y;
}

Values add64(const Values& a, const Values& b) {
  Values sum = a;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += b[i];
  return sum;
}

}  // namespace lamella::cpu::testing
