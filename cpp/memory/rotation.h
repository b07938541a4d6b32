// A rotation of a linear's inputs that makes them easier to round to int8, and needs no data to find it.
//
// A few channels of a transformer's activations are far larger than the others. One scale a token then spends most codes
// on them, and what the others say is lost. The orthogonal matrix H / sqrt(B), with H the Hadamard matrix of B rows (all
// entries 1 or -1), spreads every input over B of them: x W^T = (x H) (W H / B)^T, exactly, because H H = B. Weights are
// rotated once, before they are quantised; a token's row is rotated each time, in log2(B) additions an input. (QuaRot,
// Ashkboos et al. 2024, rotates whole models so.)
//
// Smoothing scales (a norm's weights divided by s, the columns behind it multiplied) were tried first. Found from weights
// alone they helped SmolLM2 little or harmed it; found from random tokens sent through the model they helped the linears
// behind norms and harmed mlp_down, whose inputs no norm scales. bench/perplexity.py shows what the rotation is worth.
#pragma once

#include <cstdint>
#include <span>

namespace lamella {

inline constexpr std::int64_t most_rotated = 64;

/// B for a row of that many inputs: the largest power of two, up to most_rotated, that divides it; 1 changes nothing.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t rotation_block(std::int64_t inputs) noexcept {
  const std::int64_t power = inputs & -inputs;
  return power < most_rotated ? power : most_rotated;
}

/// Which inputs the rotation mixes: with S = inputs / B, the inputs i, i + S, i + 2 S, ..., so that all arithmetic runs
/// along neighbours. It goes in stages h = 1, 2, 4, ... B / 2: where r has no bit h, the pair
/// (a, b) = (x[r S + i], x[(r + h) S + i]) becomes (a + b, a - b), rounded to fp32 at every stage: this order is part of
/// the formats, and gives every instruction set the same bits. Calls run(at, partner, count) for `count` neighbouring
/// pairs at a time.
template <typename Run>
[[gnu::always_inline]] constexpr void each_rotated_run(std::int64_t inputs, Run run) {
  const std::int64_t block = rotation_block(inputs), lines = inputs / block;
  for (std::int64_t h = 1; h < block; h *= 2)
    for (std::int64_t r = 0; r < block; r += 2 * h) run(r * lines, (r + h) * lines, h * lines);
}

/// A row of weights times H / B, in place: every stage halves its sums, so that nothing grows.
void rotate_weights(std::span<float> row) noexcept;

}  // namespace lamella
