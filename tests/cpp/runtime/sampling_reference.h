// The definitions of the sampling parameters, written down plainly and slowly: whole sorts, sets and maps, long double.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "lamella/sampling_params.h"

namespace lamella::testing {

struct Reference {
  std::vector<double> probabilities;
  double spread = 0.0;  // how far below the best token the last one of any weight is, in exponents
  bool all_masked = false;
  bool on_a_border = false;  // top_p or min_p falls so near between two tokens that rounding decides
};

/// Logits after bias, penalties and masks, each operation rounded to fp32.
inline std::vector<float> reference_logits(std::vector<float> logits, const SamplingParams& params,
                                           const std::vector<std::int32_t>& prompt,
                                           const std::vector<std::int32_t>& generated) {
  const auto at = [&](std::int32_t token) -> float& { return logits[static_cast<std::size_t>(token)]; };
  for (const LogitBias& entry : params.logit_bias) at(entry.token) = at(entry.token) + entry.bias;
  std::vector<std::int32_t> all = prompt;
  all.insert(all.end(), generated.begin(), generated.end());
  if (params.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(params.repetition_penalty);
    for (const std::int32_t token : std::set<std::int32_t>(all.begin(), all.end()))
      at(token) = at(token) < 0.0F ? at(token) * penalty : at(token) / penalty;
  }
  std::map<std::int32_t, int> counts;
  for (const std::int32_t token : generated) ++counts[token];
  for (const auto& [token, count] : counts) {
    volatile float product = static_cast<float>(params.frequency_penalty) * static_cast<float>(count);  // rounded alone
    at(token) = at(token) - product;
    at(token) = at(token) - static_cast<float>(params.presence_penalty);
  }
  std::set<std::int32_t> banned;
  const auto n = static_cast<std::size_t>(params.no_repeat_ngram_size);
  if (n > 0) {
    // Whatever the next token: is the run of n tokens that it ends there already?
    for (std::size_t token = 0; token < logits.size() && all.size() + 1 >= n; ++token) {
      std::vector<std::int32_t> run(all.end() - static_cast<std::ptrdiff_t>(n - 1), all.end());
      run.push_back(static_cast<std::int32_t>(token));
      if (std::search(all.begin(), all.end(), run.begin(), run.end()) != all.end()) banned.insert(run.back());
    }
  }
  for (const std::vector<std::int32_t>& word : params.bad_words) {
    if (word.size() > all.size() + 1) continue;
    std::vector<std::int32_t> extended = all;
    extended.push_back(word.back());
    if (std::equal(word.rbegin(), word.rend(), extended.rbegin())) banned.insert(word.back());
  }
  if (static_cast<std::int64_t>(generated.size()) < params.min_tokens)
    banned.insert(params.stop_token_ids.begin(), params.stop_token_ids.end());
  const std::set<std::int32_t> allowed(params.allowed_token_ids.begin(), params.allowed_token_ids.end());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const auto token = static_cast<std::int32_t>(i);
    if (banned.contains(token) || (!allowed.empty() && !allowed.contains(token))) logits[i] = -INFINITY;
  }
  return logits;
}

inline Reference reference_distribution(const std::vector<float>& raw, const SamplingParams& params,
                                        const std::vector<std::int32_t>& prompt,
                                        const std::vector<std::int32_t>& generated) {
  const std::vector<float> logits = reference_logits(raw, params, prompt, generated);
  Reference result;
  result.probabilities.assign(logits.size(), 0.0);
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > -INFINITY) order.push_back(i);
  result.all_masked = order.empty();
  if (result.all_masked) return result;
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  if (params.temperature == 0.0) {
    result.probabilities[order[0]] = 1.0;
    return result;
  }

  if (const auto k = static_cast<std::size_t>(params.top_k); k > 0 && k < order.size())
    std::erase_if(order, [&, kth = logits[order[k - 1]]](std::size_t i) { return logits[i] < kth; });
  const auto exponent = [&](std::size_t i) {
    return (static_cast<long double>(logits[i]) - logits[order[0]]) / static_cast<long double>(params.temperature);
  };
  const auto total_of = [&](const std::vector<std::size_t>& tokens) {
    long double total = 0.0L;
    for (const std::size_t i : tokens) total += std::exp(exponent(i));
    return total;
  };
  if (params.top_p < 1.0) {
    const long double total = total_of(order), target = static_cast<long double>(params.top_p) * total;
    long double mass = 0.0L;
    std::size_t kept = 0;
    while (kept < order.size() && mass < target) {
      mass += std::exp(exponent(order[kept++]));
      result.on_a_border = result.on_a_border || std::abs(mass - target) < 1e-12L * total;
    }
    order.resize(kept);
  }
  if (params.min_p > 0.0) {
    const long double least = std::log(static_cast<long double>(params.min_p));
    for (const std::size_t i : order)
      result.on_a_border = result.on_a_border || (params.min_p < 1.0 && std::abs(exponent(i) - least) < 1e-12L);
    std::erase_if(order, [&](std::size_t i) { return exponent(i) < least; });
  }
  const long double total = total_of(order);
  for (const std::size_t i : order) {
    const long double probability = std::exp(exponent(i)) / total;
    if (probability < 1e-295L) continue;
    result.probabilities[i] = static_cast<double>(probability);
    result.spread = std::max(result.spread, -static_cast<double>(exponent(i)));
  }
  return result;
}

}  // namespace lamella::testing
