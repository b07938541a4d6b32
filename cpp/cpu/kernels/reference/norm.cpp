#include <cmath>

#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {

void norm(const NormArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  const double width = static_cast<double>(a.width);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    const float* x = row_of(a.x, t, a.width);
    float* y = row_of(a.y, t, a.width);
    double mean = 0.0, squares = 0.0;
    if (a.kind == NormKind::layer_norm) {
      for (std::int64_t i = 0; i < a.width; ++i) mean += x[i];
      mean /= width;
    }
    for (std::int64_t i = 0; i < a.width; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const double scale = 1.0 / std::sqrt(squares / width + static_cast<double>(a.eps));
    for (std::int64_t i = 0; i < a.width; ++i) {
      if (a.kind == NormKind::none) {
        y[i] = x[i];
        continue;
      }
      const double bias = a.bias == nullptr ? 0.0 : a.bias[i];
      y[i] = static_cast<float>((x[i] - mean) * scale * a.weight[i] + bias);
    }
  }
}

}  // namespace lamella::cpu::reference
