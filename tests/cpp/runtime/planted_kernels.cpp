#include "planted_kernels.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

namespace lamella::testing {
namespace {

using cpu::Worker;

template <OrderBy by>
bool is_turned(std::int64_t tokens, const Worker& worker) {
  return by == OrderBy::tokens ? tokens > 16 : worker.count > 2;
}

const float* row_of(const void* rows, std::int64_t row, std::int64_t width) {
  return static_cast<const float*>(rows) + row * width;
}

/// Makes a row int8 codes, in floats, and returns their scale (contracts.h).
float round_to_int8(std::span<float> row) {
  float largest = 0.0F;
  for (const float value : row) largest = std::max(largest, std::abs(value));
  const float inverse = largest < 0x1p-100F ? 0.0F : 127.0F / largest;
  for (float& value : row) value = std::nearbyint(value * inverse);
  return largest < 0x1p-100F ? 0.0F : largest / 127.0F;
}

/// Calls take(token, output, sum) for the worker's outputs.
template <typename Take>
void multiply(const void* x, const PackedMatrix& weight, std::int64_t tokens, bool turned, const Worker& worker,
              const Take& take) {
  const auto inputs = static_cast<std::size_t>(weight.inputs);
  std::vector<float> w(inputs), rows(row_of(x, 0, weight.inputs), row_of(x, tokens, weight.inputs)),
      scales(static_cast<std::size_t>(tokens), 1.0F);
  if (has_int8_inputs(weight.format))
    for (std::size_t t = 0; t < scales.size(); ++t)
      scales[t] = round_to_int8(std::span(rows).subspan(t * inputs, inputs));
  const cpu::Range mine = cpu::share(weight.outputs, worker);
  for (std::int64_t o = mine.begin; o < mine.end; ++o) {
    unpack_row(weight, o, w.data());
    for (std::size_t t = 0; t < scales.size(); ++t) {
      float sum = 0.0F;
      for (std::size_t i = 0; i < inputs; ++i) {
        const std::size_t at = turned ? inputs - 1 - i : i;
        sum += rows[t * inputs + at] * w[at];
      }
      take(static_cast<std::int64_t>(t), o, scales[t] * sum);
    }
  }
}

}  // namespace

template <OrderBy by>
void planted_linear(const cpu::LinearArgs& a, const Worker& worker) {
  multiply(
      a.x, a.weight, a.tokens, is_turned<by>(a.tokens, worker), worker,
      [&](std::int64_t t, std::int64_t o, float sum) { static_cast<float*>(a.y)[t * a.weight.outputs + o] = sum; });
}

template <OrderBy by>
void planted_output_residual(const cpu::OutputResidualArgs& a, const Worker& worker) {
  const std::int64_t outputs = a.output.weight.outputs;
  multiply(a.x, a.output.weight, a.tokens, is_turned<by>(a.tokens, worker), worker,
           [&](std::int64_t t, std::int64_t o, float sum) {
             const float bias = a.output.bias == nullptr ? 0.0F : a.output.bias[o];
             static_cast<float*>(a.y)[t * outputs + o] = row_of(a.residual, t, outputs)[o] + (sum + bias);
           });
}

template <OrderBy by>
void planted_attention(const cpu::AttentionArgs& a, const Worker& worker) {
  const std::int64_t dim = a.kv.head_dim, part = is_turned<by>(a.tokens, worker) ? 64 : 256;
  const cpu::Range mine = cpu::share(a.heads, worker);
  for (std::int64_t head = mine.begin; head < mine.end; ++head)
    for (std::int64_t s = 0; s < a.kv.sequence_count; ++s) {
      const std::int64_t first = a.kv.sequences[s].first, end = first + a.kv.sequences[s].count;
      const auto cached = [&](int k_or_v, std::int64_t position, std::int64_t d) {
        const std::int64_t block = a.kv.block_tables[s * a.kv.blocks_per_sequence + position / kv_block_tokens],
                           slot = position % kv_block_tokens;
        const auto* plane = reinterpret_cast<const float*>(a.kv.plane(block, k_or_v, head / (a.heads / a.kv.kv_heads)));
        return plane[k_or_v == 0 ? key_element(1, slot, d) : value_element(1, dim, slot, d)];
      };
      for (std::int64_t t = first; t < end; ++t) {
        const float* query = row_of(a.query, head * a.tokens + t, dim);
        const std::int64_t length = a.kv.positions[a.causal ? t : end - 1] + 1;
        std::vector<float> scores(static_cast<std::size_t>(length)), sums(static_cast<std::size_t>(dim + 1));
        for (std::int64_t p = 0; p < length; ++p) {
          float score = 0.0F;
          for (std::int64_t d = 0; d < dim; ++d) score += query[d] * cached(0, p, d);
          scores[static_cast<std::size_t>(p)] = score * a.scale;
        }
        const float largest = *std::ranges::max_element(scores);
        for (std::int64_t begin = 0; begin < length; begin += part) {
          std::vector<float> part_sums(sums.size());
          for (std::int64_t p = begin; p < std::min(length, begin + part); ++p) {
            const float weight = std::exp(scores[static_cast<std::size_t>(p)] - largest);
            for (std::int64_t d = 0; d < dim; ++d) part_sums[static_cast<std::size_t>(d)] += weight * cached(1, p, d);
            part_sums.back() += weight;
          }
          std::ranges::transform(sums, part_sums, sums.begin(), std::plus());
        }
        float* y = static_cast<float*>(a.y) + (head * a.tokens + t) * dim;
        for (std::int64_t d = 0; d < dim; ++d) y[d] = sums[static_cast<std::size_t>(d)] / sums.back();
      }
    }
}

template void planted_linear<OrderBy::tokens>(const cpu::LinearArgs&, const Worker&);
template void planted_linear<OrderBy::threads>(const cpu::LinearArgs&, const Worker&);
template void planted_output_residual<OrderBy::tokens>(const cpu::OutputResidualArgs&, const Worker&);
template void planted_output_residual<OrderBy::threads>(const cpu::OutputResidualArgs&, const Worker&);
template void planted_attention<OrderBy::tokens>(const cpu::AttentionArgs&, const Worker&);
template void planted_attention<OrderBy::threads>(const cpu::AttentionArgs&, const Worker&);

}  // namespace lamella::testing
