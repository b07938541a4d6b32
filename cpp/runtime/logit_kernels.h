// The loops over a row of logits that choosing a token spends its time in, as a table: a device offers the fastest that
// its host runs. They give the same bits on every instruction set: no product is fused with a sum, and sums have one
// order that vectors of every width can follow.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lamella {

/// Logits are looked through in blocks of so many tokens.
inline constexpr std::size_t logit_block = 64;

/// Whole blocks of logits, no NaN or +infinity among them, and what find_maxima has found.
struct LogitBlocks {
  const float* logits;  // [count][logit_block]
  const float* block_max;  // [count]
  std::size_t count;
};

/// The weight of a logit: e^((logit - best) * scale) in fp64 as exp_of_negative() gives it (token_weights.h); 0 where
/// it is less than `least`, which is above -infinity.
struct LogitWeight {
  float best;
  double scale;
  float least;
};

/// Where a logit stands in buckets: (best - logit) * per_logit in fp32, rounded down, and `last` where that is more, or
/// no number.
struct LogitPlaces {
  float best, per_logit;
  std::uint16_t last;
};

/// All that have a `least` leave out blocks whose largest logit is less, at no cost. Of zeros of both signs any is
/// found.
struct LogitKernels {
  /// The largest logit of each of `count` blocks. False where there is NaN or +infinity.
  bool (*find_maxima)(const float* logits, std::size_t count, float* block_max);
  /// The weights of all logits, [count][logit_block], and of each block their sum. Blocks left out get a sum of 0 and
  /// no weights. Without `weights` the sums alone.
  void (*weigh)(const LogitBlocks& blocks, const LogitWeight& weight, double* weights, double* sums);
  /// The lowest logit that is at least `least`, and `start` where none is lower.
  float (*find_lowest)(const LogitBlocks& blocks, float least, float start);
  /// The place of each logit, [count][logit_block]; none for blocks left out.
  void (*find_places)(const LogitBlocks& blocks, float least, const LogitPlaces& place, std::uint16_t* places);
};

/// Loops that are written plainly: what other tables are tested against, and for machines that have none.
extern const LogitKernels plain_logit_kernels;

}  // namespace lamella
