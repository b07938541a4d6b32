// The machine's roofs as these vectors reach them: reading memory, and multiply-adds from register to register.
#pragma once

#include <array>

#include "cpu/kernels/vector/kernel_sets.h"

// The choice of dot products stands before this.
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Reads all of `bytes` (a multiple of 4096) and returns a sum that depends on every word: each run of 4096 bytes in so many
/// streams beside each other, and asks for what comes `Ahead` bytes later.
template <std::size_t Streams, std::size_t Ahead>
std::uint64_t read_memory(const std::byte* from, std::size_t bytes) {
  constexpr std::size_t run = 4096, stream_bytes = run / Streams, at_once = 4 / Streams * sizeof(U32);
  static_assert(Ahead <= most_read_ahead && Streams <= 4);
  U32 sums[4] = {};
  for (std::size_t at = 0; at < bytes; at += run) {
#pragma GCC unroll 4
    for (std::size_t next = 0; next < stream_bytes; next += at_once) {
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) {
        const std::byte* p = from + at + i % Streams * stream_bytes + next + i / Streams * sizeof(U32);
        if constexpr (Ahead != 0) __builtin_prefetch(p + Ahead);
        sums[i] += load_bits<U32>(p);
      }
    }
  }
  const U32 all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  std::uint64_t total = 0;
  for (int i = 0; i < lanes; ++i) total += all[i];
  return total;
}

/// Which of them is the fastest differs. On a Zen 4 the last alone gave two cores 18 to 21 GB/s, all in turns 32 to 38
/// (bench_linear): its prefetchers follow one stream in a page.
constexpr std::array<ReadLoop, 3> read_loops = {read_memory<1, 0>, read_memory<1, 4096>, read_memory<4, 8192>};

/// `rounds` multiply-adds in each of peak_chains independent chains. The factors come from outside, so nothing folds.
float chain_multiply_adds(std::int64_t rounds, float factor, float addend) {
  F32 chains[peak_chains];
#pragma GCC unroll 32
  for (int c = 0; c < peak_chains; ++c) chains[c] = splat(static_cast<float>(c));
  const F32 factors = splat(factor), addends = splat(addend);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int c = 0; c < peak_chains; ++c) chains[c] = multiply_add(chains[c], factors, addends);
  }
  F32 sum = {};
#pragma GCC unroll 32
  for (int c = 0; c < peak_chains; ++c) sum += chains[c];
  return sum_lanes(sum);
}

/// Chains of dot products of bf16 pairs, where the set has an instruction for them.
template <typename Vector>
float chain_bf16_dots(std::int64_t rounds, float factor, float addend) {
  if constexpr (multiplies_bf16_pairs) {
    Vector chains[peak_chains];
    const U32 factors = (U32)splat(factor);
#pragma GCC unroll 32
    for (int c = 0; c < peak_chains; ++c) chains[c] = splat(addend * static_cast<float>(c));
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
      for (int c = 0; c < peak_chains; ++c) chains[c] = add_pair_of_bf16(chains[c], factors, 0x3f803f80u);
    }
    Vector sum = {};
#pragma GCC unroll 32
    for (int c = 0; c < peak_chains; ++c) sum += chains[c];
    return sum_lanes(sum);
  } else {
    return chain_multiply_adds(rounds, factor, addend);
  }
}

/// Chains of dot products of four bytes, as the set makes them.
float chain_int8_dots(std::int64_t rounds, float factor, float addend) {
  I32 chains[peak_chains];
  std::int32_t quad[quad_words<8>];
  const std::int8_t ones[4] = {1, 1, 1, 1};
  pack_quad(ones, quad);
  const U32 factors = (U32)splat(factor);
#pragma GCC unroll 32
  for (int c = 0; c < peak_chains; ++c) chains[c] = static_cast<std::int32_t>(addend) + c - I32{};
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int c = 0; c < peak_chains; ++c) chains[c] = add_dots<1>(chains[c], factors, quad);
  }
  I32 sum = {};
#pragma GCC unroll 32
  for (int c = 0; c < peak_chains; ++c) sum += chains[c];
  return static_cast<float>(sum[0]);
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
