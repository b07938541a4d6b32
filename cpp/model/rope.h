// Rotary frequencies from a RopeSpec, with every scaling that transformers knows for Llama-like models.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"

namespace lamella {

/// Inverse frequencies (rotary_dim / 2 of them, radians per token) and the factor that multiplies cos and sin.
struct RopeFrequencies {
  std::vector<float> inverse;
  float attention_factor = 1.0F;
};

/// Frequencies for a sequence whose known length is `sequence_length` tokens. Only dynamic_ntk and longrope depend on
/// it; the others give the same result for every length. Follows transformers' modeling_rope_utils: powers rounded to
/// fp32.
[[nodiscard]] RopeFrequencies rope_frequencies(const RopeSpec& spec, std::int64_t sequence_length);

/// Whether frequencies depend on the sequence's length (dynamic_ntk beyond the original context, longrope).
[[nodiscard]] bool depends_on_length(const RopeSpec& spec) noexcept;

}  // namespace lamella
