#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "base/float_bits.h"
#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {
namespace {

/// Where element `d` of a row of K (0) or V (1) stands in its plane.
std::int64_t element(const KvLayout& kv, int k_or_v, std::int64_t slot, std::int64_t d) {
  const std::int64_t word = kv_word_elements(kv.type);
  return k_or_v == 0 ? key_element(word, slot, d) : value_element(word, kv.head_dim, slot, d);
}

float stored(DataType type, const std::byte* plane, std::int64_t element) {
  const std::byte* from = plane + element * static_cast<std::int64_t>(size_of(type));
  if (type == DataType::f32) return *reinterpret_cast<const float*>(from);
  if (type == DataType::i8) return static_cast<float>(std::to_integer<int>(*from) - 128);
  std::uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof bits);
  return type == DataType::bf16 ? f32_from_bf16(bits) : f32_from_f16(bits);
}

void store(DataType type, std::byte* plane, std::int64_t element, float value) {
  std::byte* to = plane + element * static_cast<std::int64_t>(size_of(type));
  if (type == DataType::f32) {
    std::memcpy(to, &value, sizeof value);
  } else if (type == DataType::i8) {
    *to = static_cast<std::byte>(static_cast<int>(value) + 128);
  } else {
    const std::uint16_t bits = type == DataType::bf16 ? bf16_from_f32(value) : f16_from_f32(value);
    std::memcpy(to, &bits, sizeof bits);
  }
}

/// Where a position of sequence `s` stands: its plane of K (0) or V (1) for `head`, and its slot.
struct Place {
  std::byte* plane;
  std::int64_t slot;
};
Place place_of(const KvLayout& kv, std::int64_t s, std::int64_t position, int k_or_v, std::int64_t head) {
  const std::int64_t block = kv.block_tables[s * kv.blocks_per_sequence + position / kv_block_tokens];
  return {kv.plane(block, k_or_v, head), position % kv_block_tokens};
}

/// The scale of a slot's row, 1 where the cache holds floats.
std::byte* scale_place(const KvLayout& kv, const Place& place) {
  return place.plane + kv_scales_offset(kv.head_dim) + place.slot * static_cast<std::int64_t>(sizeof(float));
}
float scale_of(const KvLayout& kv, const Place& place) {
  float scale = 1.0F;
  if (kv.type == DataType::i8) std::memcpy(&scale, scale_place(kv, place), sizeof scale);
  return scale;
}

std::vector<float> cached(const KvLayout& kv, std::int64_t s, std::int64_t position, int k_or_v, std::int64_t head) {
  const Place place = place_of(kv, s, position, k_or_v, head);
  std::vector<float> row(static_cast<std::size_t>(kv.head_dim));
  for (std::int64_t d = 0; d < kv.head_dim; ++d)
    row[static_cast<std::size_t>(d)] =
        scale_of(kv, place) * stored(kv.type, place.plane, element(kv, k_or_v, place.slot, d));
  return row;
}

/// A row rounded to int8 codes (memory/kv_layout.h), and its scale.
std::pair<std::vector<float>, float> rounded(const float* row, std::int64_t width) {
  float top = 0.0F;
  bool finite = true;
  for (std::int64_t d = 0; d < width; ++d) {
    finite = finite && std::isfinite(row[d]);
    top = std::max(top, std::abs(row[d]));
  }
  std::vector<float> codes(static_cast<std::size_t>(width), 0.0F);
  if (!finite) return {std::move(codes), std::numeric_limits<float>::quiet_NaN()};
  if (top < 0x1p-100F) return {std::move(codes), 0.0F};
  const float inverse = 127.0F / top;
  for (std::int64_t d = 0; d < width; ++d) codes[static_cast<std::size_t>(d)] = std::nearbyint(row[d] * inverse);
  return {std::move(codes), top / 127.0F};
}

/// The last word of a key is filled up with zeros.
void write(const KvLayout& kv, const Place& place, int k_or_v, const float* row) {
  std::vector<float> codes;
  if (kv.type == DataType::i8) {
    float scale = 0.0F;
    std::tie(codes, scale) = rounded(row, kv.head_dim);
    std::memcpy(scale_place(kv, place), &scale, sizeof scale);
    row = codes.data();
  }
  const std::int64_t word = kv_word_elements(kv.type),
                     width = k_or_v == 0 ? (kv.head_dim + word - 1) / word * word : kv.head_dim;
  for (std::int64_t d = 0; d < width; ++d)
    store(kv.type, place.plane, element(kv, k_or_v, place.slot, d), d < kv.head_dim ? row[d] : 0.0F);
}

std::int64_t sequence_of(const KvLayout& kv, std::int64_t token) {
  std::int64_t s = 0;
  while (token < kv.sequences[s].first || token >= kv.sequences[s].first + kv.sequences[s].count) ++s;
  return s;
}

}  // namespace

void kv_write(const KvWriteArgs& a, const Worker& worker) {
  const KvLayout& kv = a.kv;
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    const std::int64_t s = sequence_of(kv, t);
    for (std::int64_t head = 0; head < kv.kv_heads; ++head) {
      const std::int64_t from = t * kv.kv_heads + head;
      write(kv, place_of(kv, s, kv.positions[t], 0, head), 0, row_of(a.key, from, kv.head_dim));
      write(kv, place_of(kv, s, kv.positions[t], 1, head), 1, row_of(a.value, from, kv.head_dim));
    }
  }
}

void split_heads(const HeadsLayoutArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t head = 0; head < a.heads; ++head)
      std::copy_n(row_of(a.x, t * a.heads + head, a.head_dim), a.head_dim,
                  row_of(a.y, head * a.tokens + t, a.head_dim));
}

void merge_heads(const HeadsLayoutArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t head = 0; head < a.heads; ++head)
      std::copy_n(row_of(a.x, head * a.tokens + t, a.head_dim), a.head_dim,
                  row_of(a.y, t * a.heads + head, a.head_dim));
}

/// Two passes over the whole context: the scores with their maximum, then the weights.
void attention(const AttentionArgs& a, const Worker& worker) {
  const std::int64_t dim = a.kv.head_dim, group = a.heads / a.kv.kv_heads;
  const Range mine = share(a.heads * a.tokens, worker);
  std::vector<double> weights, sums(static_cast<std::size_t>(dim));
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t head = unit / a.tokens, t = unit % a.tokens, s = sequence_of(a.kv, t);
    const SequenceSpan span = a.kv.sequences[s];
    const std::int64_t length = std::int64_t{a.kv.positions[a.causal ? t : span.first + span.count - 1]} + 1;
    const std::int64_t begin = a.first_seen(length);
    const float* query = row_of(a.query, unit, dim);
    weights.assign(static_cast<std::size_t>(length - begin), 0.0);
    for (std::int64_t j = begin; j < length; ++j) {
      const std::vector<float> key = cached(a.kv, s, j, 0, head / group);
      double dot = 0.0;
      for (std::int64_t d = 0; d < dim; ++d) dot += static_cast<double>(query[d]) * key[static_cast<std::size_t>(d)];
      weights[static_cast<std::size_t>(j - begin)] = dot * static_cast<double>(a.scale);
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0.0;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::int64_t j = begin; j < length; ++j) {
      const double weight = std::exp(weights[static_cast<std::size_t>(j - begin)] - largest);
      const std::vector<float> value = cached(a.kv, s, j, 1, head / group);
      total += weight;
      for (std::int64_t d = 0; d < dim; ++d) {
        const auto at = static_cast<std::size_t>(d);
        sums[at] += weight * value[at];
      }
    }
    for (std::int64_t d = 0; d < dim; ++d)
      row_of(a.y, unit, dim)[d] = static_cast<float>(sums[static_cast<std::size_t>(d)] / total);
  }
}

}  // namespace lamella::cpu::reference
