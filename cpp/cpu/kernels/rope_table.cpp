#include <cmath>

#include "cpu/kernels/contracts.h"
#include "model/rope.h"

namespace lamella::cpu {

void rope_table(const RopeTableArgs& args, const Worker& worker) {
  const Range mine = share(args.tokens, worker);
  const std::int64_t half = args.rope->rotary_dim / 2;
  const bool by_length = depends_on_length(*args.rope);
  RopeFrequencies frequencies;
  std::int32_t length = -1;  // that `frequencies` hold for; those that depend on no length are computed once
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    if (length < 0 || (by_length && args.rope_lengths[t] != length)) {
      length = args.rope_lengths[t];
      frequencies = rope_frequencies(*args.rope, length);
    }
    float* cosine = args.angles + t * args.rope->rotary_dim;
    float* sine = cosine + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(args.positions[t]) * frequencies.inverse[static_cast<std::size_t>(i)];
      cosine[i] = std::cos(angle) * frequencies.attention_factor;
      sine[i] = std::sin(angle) * frequencies.attention_factor;
    }
  }
}

}  // namespace lamella::cpu
