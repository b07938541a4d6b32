// A packed store of a small model with random weights, and what an engine inside the library says to the same weights.
#pragma once

#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint_files.h"
#include "io/store_files.h"
#include "lamella/engine.h"
#include "runtime/models.h"

namespace lamella::testing {

/// Long enough that a request which nobody ends goes on while a test looks.
inline ModelSpec long_llama() {
  ModelSpec spec = llama_like();
  spec.max_positions = 1 << 16;
  return spec;
}

/// The store of fill_lively()'s weights.
inline std::string lively_store(const ModelSpec& spec, unsigned seed) {
  ResidentWeights weights(declare_weights(spec));
  fill_lively(weights, seed);
  return test::store_of(spec, DataType::f32, weights);
}

/// A store on disk and an engine from it.
class Embedded {
 public:
  explicit Embedded(ModelSpec spec = long_llama(), EngineOptions options = {.threads = 2,
                                                                            .max_num_seqs = 4,
                                                                            .max_num_batched_tokens = 32,
                                                                            .kv_cache_memory = 1 << 26})
      : spec_(std::move(spec)),
        seed_(std::random_device{}()),
        path_(folder_.write("model.lamella", lively_store(spec_, seed_))),
        engine_(std::make_unique<Engine>(Engine::open(folder_.path(), options).value())) {}

  Engine* operator->() { return engine_.get(); }
  Engine& operator*() { return *engine_; }
  void destroy() { engine_.reset(); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] unsigned seed() const { return seed_; }
  /// The same weights in an engine that knows nothing of stores and streams.
  [[nodiscard]] std::unique_ptr<EngineCore> core() const { return make_engine(spec_, {.seed = seed_}); }

  /// A prompt of the vocabulary.
  std::vector<std::int32_t> prompt(std::size_t length) { return random_tokens(random_, spec_.vocab, length); }
  /// One that does not end by itself.
  Request endless() { return {.prompt = prompt(3), .sampling = {.max_tokens = 60000}}; }
  Request brief(std::int64_t tokens = 8) { return {.prompt = prompt(3), .sampling = {.max_tokens = tokens}}; }

 private:
  const test::TemporaryFolder folder_;
  const ModelSpec spec_;
  const unsigned seed_;
  std::mt19937 random_{seed_};
  const std::filesystem::path path_;
  std::unique_ptr<Engine> engine_;
};

/// What a choice of a stream said in all.
struct Said {
  std::vector<std::int32_t> tokens;
  std::vector<std::vector<TokenLogprob>> logprobs;
  FinishReason reason = FinishReason::running;
  std::optional<Error> error;
};

inline void gather(std::vector<Said>& said, const Progress& progress) {
  if (said.size() <= static_cast<std::size_t>(progress.choice))
    said.resize(static_cast<std::size_t>(progress.choice) + 1);
  Said& own = said[static_cast<std::size_t>(progress.choice)];
  EXPECT_EQ(own.reason, FinishReason::running) << "news after the end";
  own.tokens.insert(own.tokens.end(), progress.new_tokens.begin(), progress.new_tokens.end());
  own.logprobs.insert(own.logprobs.end(), progress.logprobs.begin(), progress.logprobs.end());
  own.reason = progress.reason;
  own.error = progress.error;
}

/// Hears a stream to its end.
inline std::vector<Said> hear(Stream& stream) {
  std::vector<Said> said;
  while (!stream.finished())
    for (const Progress& progress : stream.next(Seconds(60)).value()) gather(said, progress);
  return said;
}

inline void expect_balanced(const Engine& engine) {
  const Statistics stats = engine.stats();
  EXPECT_EQ(stats.received, stats.running + stats.finished + stats.cancelled + stats.rejected + stats.failed);
}

/// Waits until nothing runs, then looks that nothing is left.
inline void expect_idle(const Engine& engine) {
  while (engine.stats().running > 0) std::this_thread::yield();
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
  expect_balanced(engine);
}

/// What went wrong must have this code and these parts in its message.
template <typename T>
void expect_refused(const Result<T>& result, ErrorCode code, const std::vector<std::string>& parts) {
  ASSERT_FALSE(result.ok());
  test::expect_error(code, parts, [&] { throw Error(result.error()); });
}

}  // namespace lamella::testing
