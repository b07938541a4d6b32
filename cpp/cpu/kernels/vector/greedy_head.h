// The best token of a row of logits; and a head that finds it while the logits are still in registers and caches, and
// writes none of them.
#pragma once

#include "cpu/kernels/vector/linear.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// The best of the logits seen so far, the lowest token among equals; of logits that are no numbers token -1.
struct Best {
  float logit;
  std::int32_t token;

  LAMELLA_INLINE void meet(const Best& other) {
    if (other.token < 0) token = -1;
    else if (token >= 0 && (other.logit > logit || (other.logit == logit && other.token < token))) *this = other;
  }
  LAMELLA_INLINE void write(float* y) const {
    const float shown = token < 0 ? __builtin_nanf("") : logit;
    __builtin_memcpy(y, &shown, sizeof shown);
    __builtin_memcpy(y + 1, &token, sizeof token);
  }
};
/// Where all are -infinity the first token is the best.
LAMELLA_INLINE constexpr Best nothing_yet(std::int32_t first_token) { return {-__builtin_inff(), first_token}; }

/// Takes in the logits of tokens [first, first + count): `row`, and `bias` where there is one.
LAMELLA_INLINE void meet_logits(Best& best, const float* row, const float* bias, std::int64_t first,
                                std::int64_t count) {
  const auto logits = [&](std::int64_t i, int n) LAMELLA_BODY {
    const F32 logit = load(row + i, n);
    return first_lanes(bias == nullptr ? logit : logit + load(bias + i, n), n, splat(-__builtin_inff()));
  };
  I32 sound = ~I32{};
  F32 top = splat(-__builtin_inff());
  each_vector(count, [&](std::int64_t i, int n) LAMELLA_BODY {
    const F32 logit = logits(i, n);
    sound &= logit < __builtin_inff();
    top = larger_lanes(logit, top);
  });
  if (fold_lanes(sound, [](std::int32_t a, std::int32_t b) LAMELLA_BODY { return a & b; }) == 0) best.token = -1;
  const float largest = max_lanes(top);
  if (best.token < 0 || !(largest >= best.logit)) return;
  std::int64_t at = 0;
  while ((bias == nullptr ? row[at] : row[at] + bias[at]) != largest) ++at;
  best.meet({largest, static_cast<std::int32_t>(first + at)});
}

void best_token(const BestTokenArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    Best best = nothing_yet(a.first_token);
    meet_logits(best, a.logits + t * a.width, nullptr, a.first_token, a.width);
    best.write(a.y + 2 * t);
  }
}

template <typename T>
void greedy_head(const GreedyHeadArgs& a, const Worker& worker) {
  const PackedMatrix& matrix = a.head.weight;
  // Behind the inputs that workers share: of every worker the best tokens of its outputs.
  auto* const all = reinterpret_cast<Best*>(worker.shared.data + worker.shared.size) - worker.count * a.tokens;
  if (worker.phase < input_phases(a.tokens, a.shared_inputs)) {
    Best* const own = all + worker.index * a.tokens;
    if (worker.phase == 0)
      for (std::int64_t t = 0; t < a.tokens; ++t) own[t] = nothing_yet(a.first_token);
    multiply_all<T>(a.x, matrix, LinearTokens::of(a), worker,
                    [&](const float* row, std::int64_t t, std::int64_t o, std::int64_t outputs) LAMELLA_BODY {
                      meet_logits(own[t], row, a.head.bias == nullptr ? nullptr : a.head.bias + o, a.first_token + o,
                                  outputs);
                    });
    return;
  }
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    Best best = all[t];
    for (std::int64_t w = 1; w < worker.count; ++w) best.meet(all[w * a.tokens + t]);
    best.write(a.y + 2 * t);
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
