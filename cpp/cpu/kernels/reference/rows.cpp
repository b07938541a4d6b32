#include <algorithm>
#include <bit>
#include <cmath>

#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {

void residual(const ResidualArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t i = 0; i < a.width; ++i)
      row_of(a.y, t, a.width)[i] = row_of(a.a, t, a.width)[i] + row_of(a.b, t, a.width)[i];
}

void gather_rows(const GatherRowsArgs& a, const Worker& worker) {
  const Range mine = share(a.row_count, worker);
  for (std::int64_t r = mine.begin; r < mine.end; ++r)
    std::copy_n(row_of(a.x, a.rows[r], a.width), a.width, row_of(a.y, r, a.width));
}

void mean_pool(const MeanPoolArgs& a, const Worker& worker) {
  const Range mine = share(a.sequence_count, worker);
  for (std::int64_t s = mine.begin; s < mine.end; ++s)
    for (std::int64_t i = 0; i < a.width; ++i) {
      double sum = 0.0;
      for (std::int64_t t = 0; t < a.sequences[s].count; ++t) sum += row_of(a.x, a.sequences[s].first + t, a.width)[i];
      row_of(a.y, s, a.width)[i] = static_cast<float>(sum / a.sequences[s].count);
    }
}

void best_token(const BestTokenArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    const float *first = a.logits + t * a.width, *last = first + a.width, *best = std::max_element(first, last);
    const bool sound = std::all_of(first, last, [](float logit) { return logit < INFINITY; });
    a.y[2 * t] = sound ? *best : NAN;
    a.y[2 * t + 1] = std::bit_cast<float>(sound ? a.first_token + static_cast<std::int32_t>(best - first) : -1);
  }
}

}  // namespace lamella::cpu::reference
