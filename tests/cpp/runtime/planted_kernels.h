// Kernels that break the promise of exactness, as real ones might that choose their order of summation by the shape of
// a step or by the number of threads: what the property tests must notice.
#pragma once

#include "cpu/kernels/contracts.h"

namespace lamella::testing {

/// What decides the order in which a planted kernel sums.
enum class OrderBy : std::uint8_t { tokens, threads };

// fp32 kernels, slow and right to fp32's accuracy. They sum along the inputs in order, and backwards in steps of more
// than 16 tokens, or on more than two threads. Attention sums parts of 256 positions, or of 64.
template <OrderBy by>
void planted_linear(const cpu::LinearArgs& a, const cpu::Worker& worker);
template <OrderBy by>
void planted_output_residual(const cpu::OutputResidualArgs& a, const cpu::Worker& worker);
template <OrderBy by>
void planted_attention(const cpu::AttentionArgs& a, const cpu::Worker& worker);  // not fused

}  // namespace lamella::testing
