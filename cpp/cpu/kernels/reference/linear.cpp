#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {

void linear(const LinearArgs& a, const Worker& worker) {
  const Range mine = share(a.outputs, worker);
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    const float* x = row_of(a.x, t, a.inputs);
    for (std::int64_t o = mine.begin; o < mine.end; ++o) {
      const float* w = row_of(a.weight, o, a.inputs);
      double sum = 0.0;
      for (std::int64_t i = 0; i < a.inputs; ++i) sum += static_cast<double>(x[i]) * w[i];
      row_of(a.y, t, a.outputs)[o] = static_cast<float>(sum);
    }
  }
}

void add_bias(const AddBiasArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t i = 0; i < a.width; ++i) row_of(a.y, t, a.width)[i] = row_of(a.x, t, a.width)[i] + a.bias[i];
}

}  // namespace lamella::cpu::reference
