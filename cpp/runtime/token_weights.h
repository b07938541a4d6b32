// From logits to probabilities: which tokens are kept, what each weighs, and which one a random number points at.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "runtime/sampler_scratch.h"

namespace lamella {

/// The tokens that top_k, top_p and min_p keep. All three keep the best ones, so one border says it: every token with a
/// larger logit than `least`, and those equal to it up to the id `last`. Tokens at -infinity are never among them.
struct Cut {
  float least = std::numeric_limits<float>::lowest();
  std::int32_t last = std::numeric_limits<std::int32_t>::max();
};

/// e^x for x <= 0, in fp64 within 2^-51 of the exact value, and 0 below -708, where that would stop being a normal
/// number. The same bits on every machine: multiplications and additions alone, in the order that exp_series.h gives.
[[nodiscard]] double exp_of_negative(double x) noexcept;

/// The probability of the kept tokens, not normalised: exp((logit - best) / temperature), so that the best token weighs
/// 1. In fp64.
class TokenWeights {
 public:
  /// `temperature` > 0; scan.best must be finite. Both arguments must outlive the weights.
  TokenWeights(const LogitScan& scan, double temperature, SamplerScratch& scratch)
      : scan_(scan), scratch_(scratch), temperature_(temperature), scale_(1.0 / temperature) {}

  /// Narrows the cut: the k best, and those equal to the k-th.
  void keep_top_k(std::size_t k);
  /// Narrows the cut: the fewest best of the tokens kept so far that have the share `top_p` < 1 of their weight. Adds
  /// it up in buckets by the distance from the best logit, and sorts only the one in which that share is reached.
  void keep_top_p(double top_p);
  /// Narrows the cut: at least `min_p` > 0 times as probable as the best.
  void keep_min_p(double min_p);

  /// The weight of all kept tokens.
  [[nodiscard]] double total() { return sum_blocks(); }
  /// The kept token at which the sum of weights, in the order of ids, passes `uniform` of [0, 1) times the total.
  [[nodiscard]] std::int32_t draw(double uniform);
  /// Of every token its probability; 0 for those that are not kept.
  [[nodiscard]] std::vector<double> probabilities();

 private:
  void keep_at_least(float least);
  [[nodiscard]] LogitWeight weight(float least) const { return {scan_.best, scale_, least}; }
  /// Calls visit(LogitBlocks, index of the first, least) for all blocks in order: kept are the logits of those blocks
  /// that are at least so much.
  template <typename Visit>
  void visit_blocks(const Visit& visit) const;
  /// As visit_blocks, some blocks at a time.
  template <typename Visit>
  void visit_chunks(const Visit& visit) const;
  /// Adds the weight of the kept tokens up in scratch.buckets by their places, and returns all of it. Blocks with no
  /// logit of at least `least` go into the sum alone.
  double fill_buckets(const LogitPlaces& place, float least);
  /// Writes the kept tokens of a bucket to scratch.tokens, best first; none of blocks that fill_buckets left out.
  void find_bucket(const LogitPlaces& place, float least, std::uint16_t bucket);
  /// The logits of a block that are kept; -infinity for others.
  [[nodiscard]] std::array<float, logit_block> kept_logits(std::size_t block) const;
  /// The weights of a block of which a token is kept.
  [[nodiscard]] std::array<double, logit_block> weights_of(std::size_t block) const;
  /// Writes block_weights to the scratch and returns their sum. Costs nothing for blocks without a kept token.
  double sum_blocks();

  const LogitScan& scan_;
  SamplerScratch& scratch_;
  double temperature_, scale_;
  Cut cut_;
};

}  // namespace lamella
