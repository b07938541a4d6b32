// Small models with random weights, ready to run.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "cpu/cpu_device.h"
#include "memory/resident_weights.h"
#include "runtime/engine_core.h"
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

inline std::unique_ptr<EngineCore> make_engine(const ModelSpec& spec, const EngineChoice& choice = {}) {
  return std::make_unique<EngineCore>(
      spec, choice.config,
      std::make_unique<cpu::CpuDevice>(cpu::CpuOptions{.threads = choice.threads, .kernels = choice.kernels}),
      [&](RankWeights ranks, ThreadTeam&) { fill_lively(*ranks.front(), choice.seed); });
}

/// How a choice of a request ended.
struct Ended {
  std::vector<std::int32_t> tokens;
  FinishReason reason = FinishReason::running;
  std::optional<Error> error;
};

/// A client that gathers what it hears, by request and choice.
class Listener {
 public:
  explicit Listener(const EngineCore& engine) : client_(engine.client()) {}

  RequestId submit(const Request& request) { return client_.submit(request); }
  std::vector<RequestId> submit_all(const std::vector<Request>& requests) { return client_.submit(requests); }
  void cancel(RequestId id) { client_.cancel(id); }
  [[nodiscard]] std::size_t open() const { return client_.open(); }
  /// Waits for one piece of news at most.
  void listen() {
    for (Progress& progress : client_.wait(60.0)) {
      Ended& own = heard_[{progress.id, progress.choice}];
      own.tokens.insert(own.tokens.end(), progress.new_tokens.begin(), progress.new_tokens.end());
      own.reason = progress.reason;
      own.error = progress.error;
    }
  }
  /// Listens until the choice has ended.
  const Ended& finish(RequestId id, std::int32_t choice = 0) {
    const Ended& own = heard_[{id, choice}];
    while (own.reason == FinishReason::running) listen();
    return own;
  }
  const Ended& heard(RequestId id, std::int32_t choice = 0) { return heard_[{id, choice}]; }
  Client& client() { return client_; }

 private:
  Client client_;
  std::map<std::pair<RequestId, std::int32_t>, Ended> heard_;
};

/// The tokens of one request, which may share the engine with others.
inline std::vector<std::int32_t> generate(const EngineCore& engine, const Request& request) {
  Listener listener(engine);
  return listener.finish(listener.submit(request)).tokens;
}

/// No request, no block: what an engine is like between requests.
inline void expect_idle(const EngineCore& engine) {
  EXPECT_EQ(engine.stats().requests.running, 0);
  EXPECT_EQ(engine.stats().loop.kv_blocks_used, 0);
}

inline void expect_balanced(const EngineCore& engine) {
  const RequestCounts counts = engine.stats().requests;
  EXPECT_EQ(counts.received, counts.running + counts.finished + counts.cancelled + counts.rejected + counts.failed);
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
