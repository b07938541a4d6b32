#include "runtime/logit_scan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <limits>

namespace lamella {
namespace {

constexpr unsigned rank_shift = 20;  // leaves sign, exponent and three bits: 4096 counters

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
  const std::size_t whole = logits.size() / logit_block;
  scan.block_max.resize((logits.size() + logit_block - 1) / logit_block);
  bool sound = scan.kernels->find_maxima(logits.data(), whole, scan.block_max.data());
  if (whole < scan.block_max.size()) {
    scan.tail.fill(-std::numeric_limits<float>::infinity());
    std::ranges::copy(logits.subspan(whole * logit_block), scan.tail.begin());
    sound = scan.kernels->find_maxima(scan.tail.data(), 1, &scan.block_max[whole]) && sound;
  }
  scan.best = -std::numeric_limits<float>::infinity();
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
