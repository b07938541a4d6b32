// The plain ops on rows: embedding, bias, residual, gathering, pooling, and the two changes of head layout.
#pragma once

#include "cpu/kernels/contracts.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// sum += the numbers of one output of a packed matrix, where there is one.
LAMELLA_INLINE void add_packed_row(float* sum, float* row, const PackedMatrix& table, std::int64_t output) {
  if (table.data == nullptr) return;
  unpack_row(table, output, row);
  each_vector(table.inputs, [&](std::int64_t i, int count)
                                LAMELLA_BODY { store(sum + i, load(sum + i, count) + load(row + i, count), count); });
}

template <typename T>
void embed(const EmbedArgs& a, const Worker& worker) {
  float* sum = reinterpret_cast<float*>(worker.scratch.data);
  float* row = sum + round_up(a.width, 8);
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    const std::int64_t own = std::int64_t{a.token_ids[t]} - a.first_token;
    if (own < 0 || own >= a.token_table.outputs) {  // another rank's
      __builtin_memset(static_cast<T*>(a.y) + t * a.width, 0, static_cast<std::size_t>(a.width) * sizeof(T));
      continue;
    }
    unpack_row(a.token_table, own, sum);
    add_packed_row(sum, row, a.type_table, a.type_table.data == nullptr ? 0 : a.token_types[t]);
    add_packed_row(sum, row, a.position_table, std::int64_t{a.positions[t]} + a.position_offset);
    store_row(static_cast<T*>(a.y) + t * a.width, sum, a.width);
  }
}

template <typename T>
void add_bias_as(const AddBiasArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    const T* x = static_cast<const T*>(a.x) + t * a.width;
    T* y = static_cast<T*>(a.y) + t * a.width;
    each_vector(a.width, [&](std::int64_t i, int count)
                             LAMELLA_BODY { store(y + i, load(x + i, count) + load(a.bias + i, count), count); });
  }
}

template <typename T>
void add_bias(const AddBiasArgs& a, const Worker& worker) {
  if (a.f32) add_bias_as<float>(a, worker);
  else add_bias_as<T>(a, worker);
}

template <typename A, typename T>
void residual_as(const ResidualArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  const std::int64_t begin = mine.begin * a.width;
  const A* first = static_cast<const A*>(a.a) + begin;
  const T* second = static_cast<const T*>(a.b) + begin;
  T* y = static_cast<T*>(a.y) + begin;
  each_vector((mine.end - mine.begin) * a.width, [&](std::int64_t i, int count) LAMELLA_BODY {
    store(y + i, load(first + i, count) + load(second + i, count), count);
  });
}

template <typename T>
void residual(const ResidualArgs& a, const Worker& worker) {
  if (a.f32) residual_as<float, float>(a, worker);
  else if (a.a_f32) residual_as<float, T>(a, worker);
  else residual_as<T, T>(a, worker);
}

template <typename T, typename Y>
void gather_rows_into(const GatherRowsArgs& a, const Worker& worker) {
  const Range mine = share(a.row_count, worker);
  for (std::int64_t r = mine.begin; r < mine.end; ++r) {
    const T* x = static_cast<const T*>(a.x) + std::int64_t{a.rows[r]} * a.width;
    Y* y = static_cast<Y*>(a.y) + r * a.width;
    each_vector(a.width, [&](std::int64_t i, int count) LAMELLA_BODY { store(y + i, load(x + i, count), count); });
  }
}

template <typename T>
void gather_rows(const GatherRowsArgs& a, const Worker& worker) {
  if (a.y_f32) gather_rows_into<T, float>(a, worker);
  else gather_rows_into<T, T>(a, worker);
}

/// Tokens are added in order, whatever the number of workers: these share the sequences.
template <typename T>
void mean_pool(const MeanPoolArgs& a, const Worker& worker) {
  const Range mine = share(a.sequence_count, worker);
  for (std::int64_t s = mine.begin; s < mine.end; ++s) {
    const T* x = static_cast<const T*>(a.x) + a.sequences[s].first * a.width;
    const std::int32_t tokens = a.sequences[s].count;
    each_vector(a.width, [&](std::int64_t i, int count) LAMELLA_BODY {
      F32 sum = {};
      for (std::int64_t t = 0; t < tokens; ++t) sum += load(x + t * a.width + i, count);
      store(a.y + s * a.width + i, sum / static_cast<float>(tokens), count);
    });
  }
}

/// Copies head rows between [tokens][heads][head_dim] and [heads][tokens][head_dim].
template <typename T, bool Split>
void transpose_heads(const HeadsLayoutArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens * a.heads, worker);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t head = unit / a.tokens, t = unit % a.tokens;
    const std::int64_t by_token = (t * a.heads + head) * a.head_dim, by_head = unit * a.head_dim;
    __builtin_memcpy(static_cast<T*>(a.y) + (Split ? by_head : by_token),
                     static_cast<const T*>(a.x) + (Split ? by_token : by_head),
                     static_cast<std::size_t>(a.head_dim) * sizeof(T));
  }
}
template <typename T>
void split_heads(const HeadsLayoutArgs& a, const Worker& worker) {
  transpose_heads<T, true>(a, worker);
}
template <typename T>
void merge_heads(const HeadsLayoutArgs& a, const Worker& worker) {
  transpose_heads<T, false>(a, worker);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
