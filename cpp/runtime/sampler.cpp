#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "base/counter_random.h"

namespace lamella {
namespace {

struct Candidate {
  std::int32_t token;
  double weight;  // logit first, unnormalised probability later
};

std::int32_t best_token(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
}

void check_finite(std::span<const float> logits) {
  bool any_finite = false;
  for (const float logit : logits) {
    if (std::isnan(logit) || logit == INFINITY)
      throw Error(ErrorCode::numeric,
                  "the model's logits hold NaN or infinity; its weights or the dtype's range are at fault");
    any_finite = any_finite || logit != -INFINITY;
  }
  if (!any_finite) throw Error(ErrorCode::numeric, "no token has a finite logit");
}

/// The k best, and every token equal to the k-th, in token order.
void keep_top_k(std::vector<Candidate>& candidates, std::int32_t k) {
  if (k <= 0 || static_cast<std::size_t>(k) >= candidates.size()) return;
  std::vector<double> weights;
  weights.reserve(candidates.size());
  for (const Candidate& candidate : candidates) weights.push_back(candidate.weight);
  std::ranges::nth_element(weights, weights.begin() + k - 1, std::ranges::greater{});
  const double threshold = weights[static_cast<std::size_t>(k) - 1];
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < threshold; });
}

/// The fewest best tokens whose probability together reaches top_p; at least one. Equal tokens count in token order.
void keep_top_p(std::vector<Candidate>& candidates, double top_p, double total) {
  if (top_p >= 1.0) return;
  std::ranges::stable_sort(candidates, std::ranges::greater{}, &Candidate::weight);
  double mass = 0.0;
  std::size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || mass < top_p * total)) mass += candidates[kept++].weight;
  candidates.resize(kept);
  std::ranges::sort(candidates, {}, &Candidate::token);
}

double sum(const std::vector<Candidate>& candidates) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  return total;
}

}  // namespace

std::int32_t sample(std::span<const float> logits, const SamplingParams& params, std::uint32_t sample_index,
                    std::int64_t position) {
  check_finite(logits);
  const std::int32_t best = best_token(logits);
  if (params.temperature == 0.0) return best;

  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) candidates.push_back({static_cast<std::int32_t>(i), logits[i]});
  keep_top_k(candidates, params.top_k);
  const double largest = logits[static_cast<std::size_t>(best)];
  for (Candidate& candidate : candidates)
    candidate.weight = std::exp((candidate.weight - largest) / params.temperature);
  keep_top_p(candidates, params.top_p, sum(candidates));

  const double target = uniform(params.seed, sample_index, static_cast<std::uint64_t>(position)) * sum(candidates);
  double mass = 0.0;
  for (const Candidate& candidate : candidates) {
    mass += candidate.weight;
    if (target < mass) return candidate.token;
  }
  // Rounding left the target at the very end: the last token that has any probability.
  const auto last =
      std::ranges::find_if(candidates.rbegin(), candidates.rend(), [](const Candidate& c) { return c.weight > 0.0; });
  return last->token;
}

void validate(const SamplingParams& params, std::int64_t vocabulary) {
  const auto refuse = [](std::string_view field, const auto& found, std::string_view expected) {
    throw Error(ErrorCode::invalid_argument, concat(field, " is ", found, "; expected ", expected));
  };
  if (params.max_tokens < 1) refuse("max_tokens", params.max_tokens, "at least 1");
  if (!(params.temperature >= 0.0) || !std::isfinite(params.temperature))
    refuse("temperature", params.temperature, "a number from 0 up");
  // Below this the exponent of every token but the best underflows, so it could only pretend to sample.
  if (params.temperature > 0.0 && params.temperature < 1e-6)
    refuse("temperature", params.temperature, "0 (greedy) or at least 1e-6");
  if (params.top_k < 0 || params.top_k > vocabulary)
    refuse("top_k", params.top_k, concat("0 (all) to the vocabulary's ", vocabulary));
  if (!(params.top_p > 0.0 && params.top_p <= 1.0)) refuse("top_p", params.top_p, "a number above 0 and at most 1");
  for (const std::int32_t token : params.stop_token_ids)
    if (token < 0 || token >= vocabulary) refuse("stop_token_ids", token, concat("ids from 0 to ", vocabulary - 1));
}

}  // namespace lamella
