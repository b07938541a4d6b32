// The ops in float64 on plain vectors, written apart from every kernel: what the kernel tests compare with. (Linears:
// packed.h.)
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels/contracts.h"

namespace lamella::cpu::testing {

using Values = std::vector<double>;

/// Rows of `width`; weight and bias may be empty.
[[nodiscard]] Values norm64(NormKind kind, const Values& x, const Values& weight, const Values& bias, double eps,
                            std::int64_t width);
[[nodiscard]] double activation64(Activation kind, double x);
/// x [tokens][heads][head_dim], angles [tokens][rotary_dim].
[[nodiscard]] Values rope64(const Values& x, const Values& angles, std::int64_t heads, std::int64_t head_dim,
                            std::int64_t rotary_dim);
/// query [queries][dim], each with its own K and V rows of `dim`.
[[nodiscard]] Values attend64(const double* query, const double* keys, const double* values, std::int64_t length,
                              std::int64_t dim, double scale);
[[nodiscard]] Values add64(const Values& a, const Values& b);

}  // namespace lamella::cpu::testing
