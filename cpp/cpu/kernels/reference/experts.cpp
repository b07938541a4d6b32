#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

}  // namespace

void route(const RouteArgs& a, const Worker& worker) {
  const auto experts = static_cast<std::size_t>(a.routing.experts), top_k = static_cast<std::size_t>(a.routing.top_k);
  const bool by_sigmoid = a.routing.kind == RouterKind::sigmoid_with_bias;
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    const float* logits = row_of(a.logits, t, a.routing.experts);
    std::vector<double> scores(logits, logits + experts), keys = scores;
    const double top = *std::max_element(scores.begin(), scores.end());
    for (std::size_t e = 0; e < experts; ++e) {
      scores[e] = by_sigmoid ? sigmoid(logits[e]) : std::exp(logits[e] - top);
      if (by_sigmoid) keys[e] = scores[e] + a.routing.bias[e];
    }
    std::vector<std::size_t> order(experts);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return keys[i] > keys[j]; });
    double of_all = 0.0, of_chosen = 0.0;
    for (const double score : scores) of_all += score;
    for (std::size_t j = 0; j < top_k; ++j) of_chosen += scores[order[j]];
    for (std::size_t j = 0; j < top_k; ++j) {
      const auto at = static_cast<std::size_t>(t) * top_k + j;
      double weight = scores[order[j]];
      switch (a.routing.kind) {
        case RouterKind::softmax_top_k:
        case RouterKind::top_1: weight /= of_all; break;
        case RouterKind::softmax_top_k_renormalised: weight /= of_chosen; break;
        case RouterKind::sigmoid_with_bias: weight *= a.routing.scale / (of_chosen + least_sum); break;
      }
      a.chosen[at] = static_cast<std::int32_t>(order[j]);
      a.weights[at] = static_cast<float>(weight);
    }
  }
}

void dispatch(const DispatchArgs& a, const Worker& worker) {
  if (worker.phase == 0 || worker.index != 0) return;
  std::int32_t row = 0;
  for (std::int32_t e = 0; e < a.routing.experts; ++e) {
    a.to.offsets[e] = row;
    for (std::int64_t i = 0; i < a.tokens * a.routing.top_k; ++i) {
      if (a.chosen[i] != e) continue;
      a.to.places[i] = row;
      std::copy_n(row_of(a.x, i / a.routing.top_k, a.width), a.width, row_of(a.to.rows, row, a.width));
      ++row;
    }
  }
  a.to.offsets[a.routing.experts] = row;
}

void expert_linear(const ExpertLinearArgs& a, const Worker& worker) {
  for (std::int64_t e = 0; e < a.experts.count; ++e) {
    const std::int64_t first = a.experts.offsets[e], rows = a.experts.offsets[e + 1] - first;
    const auto& [weight, bias] = a.linears[e];
    float* y = row_of(a.y, first, weight.outputs);
    linear({.x = row_of(a.x, first, weight.inputs), .weight = weight, .y = y, .y_f32 = true, .tokens = rows}, worker);
    if (bias == nullptr) continue;
    const Range mine = share(weight.outputs, worker);  // as linear() shares them
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t o = mine.begin; o < mine.end; ++o) y[r * weight.outputs + o] += bias[o];
  }
}

void combine(const CombineArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t i = 0; i < a.width; ++i) {
      double sum = 0.0;
      for (std::int64_t j = t * a.top_k; j < (t + 1) * a.top_k; ++j)
        sum += static_cast<double>(a.weights[j]) * row_of(a.rows, a.places[j], a.width)[i];
      const double gate = a.shared_gate == nullptr ? 1.0 : sigmoid(a.shared_gate[t]);
      if (a.shared != nullptr) sum += gate * row_of(a.shared, t, a.width)[i];
      row_of(a.y, t, a.width)[i] = static_cast<float>(sum);
    }
}

}  // namespace lamella::cpu::reference
