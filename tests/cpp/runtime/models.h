// Small models with random weights, ready to run.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "cpu/cpu_device.h"
#include "memory/resident_weights.h"
#include "runtime/engine.h"
#include "specs.h"
#include "store/pack.h"
#include "store/quantise.h"

namespace lamella::testing {

/// Puts rows of numbers into a weight's room in its format.
inline void fill_weight(ResidentWeights& weights, const WeightDeclaration& weight, std::span<const float> values) {
  const std::span<std::byte> bytes = weights.bytes(weight.id);
  if (is_vector(weight.id.slot)) {
    std::ranges::copy(std::as_bytes(values), bytes.begin());
    return;
  }
  const MatrixRoom room{.bytes = bytes, .outputs = weight.rows, .inputs = weight.columns, .format = weight.format};
  if (!is_quantised(weight.format)) return pack_floats(room, 0, values);
  CodedRows codes;
  quantise_rows(values, weight.rows, weight.columns, weight.format, Rounding::nearest, codes);
  pack_codes(room, 0, codes);
}

/// Weights lively enough that logits differ from token to token: normal, deviation 1 / sqrt(inputs); norms around 1.
inline void fill_lively(ResidentWeights& weights, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (const WeightDeclaration& weight : weights.declarations()) {
    const bool vector = is_vector(weight.id.slot);
    const float scale = vector ? 0.3F : 1.0F / std::sqrt(static_cast<float>(weight.columns));
    std::vector<float> values(static_cast<std::size_t>(weight.rows * weight.columns));
    for (float& value : values) value = (vector ? 1.0F : 0.0F) + scale * normal(random);
    fill_weight(weights, weight, values);
  }
}

struct EngineChoice {
  EngineConfig config = {.max_num_seqs = 4, .max_num_batched_tokens = 32};
  int threads = 2;
  std::optional<cpu::KernelSet> kernels;
  unsigned seed = 1;
};

inline std::unique_ptr<Engine> make_engine(const ModelSpec& spec, const EngineChoice& choice = {}) {
  return std::make_unique<Engine>(
      spec, choice.config,
      std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = choice.threads, .kernels = choice.kernels}),
      [&](ResidentWeights& weights, ThreadTeam&) { fill_lively(weights, choice.seed); });
}

/// Steps until the request is over; its generated tokens.
inline std::vector<std::int32_t> finish(Engine& engine, RequestId id) {
  std::vector<std::int32_t> tokens;
  for (;;) {
    engine.step();
    const Progress progress = engine.poll(id);
    tokens.insert(tokens.end(), progress.new_tokens.begin(), progress.new_tokens.end());
    if (progress.reason != FinishReason::running) return tokens;
  }
}

inline void expect_balanced(const Engine& engine) {
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.received, stats.running + stats.finished + stats.cancelled + stats.rejected + stats.failed);
}

inline std::vector<std::int32_t> random_tokens(std::mt19937& random, std::int64_t vocabulary, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary));
  return tokens;
}

inline double relative_error(std::span<const float> out, std::span<const float> reference) {
  double difference = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    difference += (double{out[i]} - reference[i]) * (double{out[i]} - reference[i]);
    norm += double{reference[i]} * reference[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace lamella::testing
