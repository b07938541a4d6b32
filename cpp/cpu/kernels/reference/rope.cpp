#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {

void rope(const RopeArgs& a, const Worker& worker) {
  const std::int64_t half = a.rotary_dim / 2;
  const Range mine = share(a.tokens * a.heads, worker);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const float* x = row_of(a.x, unit, a.head_dim);
    float* y = row_of(a.y, unit, a.head_dim);
    const float* cosine = a.angles + unit / a.heads * a.rotary_dim;
    const float* sine = cosine + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const double first = x[i], second = x[i + half];
      y[i] = static_cast<float>(first * cosine[i] - second * sine[i]);
      y[i + half] = static_cast<float>(second * cosine[i] + first * sine[i]);
    }
    for (std::int64_t i = a.rotary_dim; i < a.head_dim; ++i) y[i] = x[i];
  }
}

}  // namespace lamella::cpu::reference
