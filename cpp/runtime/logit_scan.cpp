#include "runtime/logit_scan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <limits>

namespace lamella {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr unsigned rank_shift = 20;  // leaves sign, exponent and three bits: 4096 counters
struct BlockResult {
  float best;
  bool sound;
};

/// The largest of the first 2 * half values, in the first place. A constant number of rounds, so that compilers keep
/// them in vector registers.
template <std::size_t half>
void fold_maximum(float* values) {
  for (std::size_t i = 0; i < half; ++i) values[i] = values[i] < values[i + half] ? values[i + half] : values[i];
  if constexpr (half > 1) fold_maximum<half / 2>(values);
}

/// A whole block. NaN shows in `sound` alone.
BlockResult scan_block(const float* logits) {
  std::int32_t unsound = 0;
  for (std::size_t i = 0; i < logit_block; ++i) unsound += logits[i] < infinity ? 0 : 1;
  std::array<float, logit_block / 2> best;
  for (std::size_t i = 0; i < best.size(); ++i) {
    const float other = logits[i + best.size()];
    best[i] = logits[i] < other ? other : logits[i];
  }
  fold_maximum<logit_block / 4>(best.data());
  return {best[0], unsound == 0};
}

float kth_largest(std::vector<float>& values, std::size_t k) {
  const auto place = values.begin() + static_cast<std::ptrdiff_t>(k) - 1;
  std::ranges::nth_element(values, place, std::greater{});
  return *place;
}

/// The leading bits of a float, in the order of floats: the larger, the smaller the number. Zeros of both signs differ,
/// which orders equals. Without a branch, which the signs of logits would mislead.
std::size_t rank_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t negative = 0U - (bits >> 31U);  // all ones or none
  return (bits ^ (0x7fffffffU & ~negative)) >> rank_shift;
}

/// Counts by leading bits, so that only those that share them with the k-th are put in order: a fifth of the time that
/// nth_element needs for a vocabulary.
float kth_of_many(std::span<const float> logits, std::size_t k, std::vector<float>& selection) {
  std::array<std::uint32_t, std::size_t{1} << (32 - rank_shift)> counts{};
  for (const float logit : logits) ++counts[rank_bits(logit)];
  std::size_t larger = 0, rank = 0;
  while (larger + counts[rank] < k) larger += counts[rank++];
  selection.clear();
  for (const float logit : logits)
    if (rank_bits(logit) == rank) selection.push_back(logit);
  return kth_largest(selection, k - larger);
}

}  // namespace

bool scan(std::span<const float> logits, LogitScan& scan) {
  scan.logits = logits;
  scan.block_max.resize((logits.size() + logit_block - 1) / logit_block);
  bool sound = true;
  const std::size_t whole = logits.size() / logit_block;
  for (std::size_t block = 0; block < whole; ++block) {
    const BlockResult result = scan_block(logits.data() + block * logit_block);
    scan.block_max[block] = result.best;
    sound = sound && result.sound;
  }
  if (whole < scan.block_max.size()) {
    std::array<float, logit_block> rest;
    rest.fill(-infinity);
    std::ranges::copy(logits.subspan(whole * logit_block), rest.begin());
    const BlockResult result = scan_block(rest.data());
    scan.block_max[whole] = result.best;
    sound = sound && result.sound;
  }
  scan.best = -infinity;
  for (const float best : scan.block_max) scan.best = std::max(scan.best, best);
  return sound;
}

std::int32_t best_token(const LogitScan& scan) {
  const auto block = std::ranges::find(scan.block_max, scan.best) - scan.block_max.begin();
  const auto first = scan.logits.begin() + block * static_cast<std::ptrdiff_t>(logit_block);
  return static_cast<std::int32_t>(std::find(first, scan.logits.end(), scan.best) - scan.logits.begin());
}

float kth_logit(const LogitScan& scan, std::size_t k, std::vector<float>& selection) {
  if (k > scan.block_max.size()) return kth_of_many(scan.logits, k, selection);
  // The best of k blocks are k logits: the k-th of those is no larger than the k-th of all.
  selection.assign(scan.block_max.begin(), scan.block_max.end());
  const float bound = kth_largest(selection, k);
  selection.clear();
  visit_at_least(scan, bound, [&](std::int32_t, float logit) { selection.push_back(logit); });
  return kth_largest(selection, k);
}

void best_tokens(const LogitScan& scan, std::size_t count, SamplerScratch& scratch) {
  scratch.tokens.clear();
  count = std::min(count, scan.logits.size());
  if (count == 0) return;
  visit_at_least(scan, kth_logit(scan, count, scratch.selection),
                 [&](std::int32_t token, float logit) { scratch.tokens.push_back({logit, token}); });
  const auto end = scratch.tokens.begin() + static_cast<std::ptrdiff_t>(count);
  std::ranges::partial_sort(scratch.tokens, end, better);
  scratch.tokens.resize(count);
}

std::int32_t rank_of(const LogitScan& scan, std::int32_t token) {
  const float logit = scan.logits[static_cast<std::size_t>(token)];
  std::int32_t rank = 1;
  visit_at_least(scan, logit, [&](std::int32_t other, float found) {
    if (found > logit || other < token) ++rank;
  });
  return rank;
}

}  // namespace lamella
