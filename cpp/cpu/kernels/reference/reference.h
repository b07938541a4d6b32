// The oracle: every op that is not fused, in plain scalar fp32 with double accumulators, written to be read and
// believed rather than to be fast. It shares nothing with the vector kernels but the contracts.
#pragma once

#include "cpu/kernels/contracts.h"

namespace lamella::cpu::reference {

void norm(const NormArgs& a, const Worker& worker);
void embed(const EmbedArgs& a, const Worker& worker);
void linear(const LinearArgs& a, const Worker& worker);
void add_bias(const AddBiasArgs& a, const Worker& worker);
void rope(const RopeArgs& a, const Worker& worker);
void kv_write(const KvWriteArgs& a, const Worker& worker);
void split_heads(const HeadsLayoutArgs& a, const Worker& worker);
void merge_heads(const HeadsLayoutArgs& a, const Worker& worker);
void attention(const AttentionArgs& a, const Worker& worker);
void activate(const ActivateArgs& a, const Worker& worker);
void residual(const ResidualArgs& a, const Worker& worker);
void gather_rows(const GatherRowsArgs& a, const Worker& worker);
void mean_pool(const MeanPoolArgs& a, const Worker& worker);
void best_token(const BestTokenArgs& a, const Worker& worker);
void route(const RouteArgs& a, const Worker& worker);
void dispatch(const DispatchArgs& a, const Worker& worker);
void expert_linear(const ExpertLinearArgs& a, const Worker& worker);
void combine(const CombineArgs& a, const Worker& worker);

/// Row `row` of a matrix of fp32.
[[nodiscard]] inline const float* row_of(const void* matrix, std::int64_t row, std::int64_t width) {
  return static_cast<const float*>(matrix) + row * width;
}
[[nodiscard]] inline float* row_of(void* matrix, std::int64_t row, std::int64_t width) {
  return static_cast<float*>(matrix) + row * width;
}

}  // namespace lamella::cpu::reference
