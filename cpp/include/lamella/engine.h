// The engine for C++ services: opens a packed store (`lamella pack`) and serves requests, many at once.
//
//   lamella::Result<lamella::Engine> engine = lamella::Engine::open("smollm2/");
//   if (!engine) return complain(engine.error().what());
//   lamella::Result<lamella::Stream> stream = engine.value().submit({.prompt = ids, .sampling = {.max_tokens = 64}});
//   if (!stream) return complain(stream.error().what());
//   while (!stream.value().finished())
//     for (const lamella::Progress& news : stream.value().next().value()) show(news.new_tokens);
//
// No exception crosses this border but those of Result::value() and std::bad_alloc where arguments are copied on the
// way in. The library installs no signal handler and never ends its process.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "lamella/error.h"
#include "lamella/request.h"
#include "lamella/statistics.h"
#include "lamella/stream.h"
#include "lamella/types.h"

namespace lamella {

/// Limits and switches of an engine. Engine::open() refuses what lies outside a range, naming the field.
struct EngineOptions {
  /// Threads that compute, 0 to 1024; 0: every core that affinity and cgroup limits leave to the process. Ranks share them, and
  /// have one each at least.
  int threads = 0;
  /// Ranks that share every layer, and stages that share the layers: threads of this process, each with its own part of the
  /// weights and of the KV cache. As many ranks as their product, at most as many as the model has heads, and layers.
  int tensor_parallel_size = 1, pipeline_parallel_size = 1;
  /// Of activations: f32, f16 or bf16; nothing: the store's. Weights keep the store's formats.
  std::optional<DataType> dtype = {};
  /// In which the KV cache holds K and V: f32, f16, bf16 or i8, which has a scale for every token and head and halves a
  /// bf16 cache; nothing: the dtype.
  std::optional<DataType> kv_cache_dtype = {};
  /// Sequences in a step, 1 to 4096; further requests wait.
  std::int64_t max_num_seqs = 32;
  /// Tokens of prompt and result together, 1 to the model's own context; 0: that.
  std::int64_t max_model_len = 0;
  /// Tokens in a step, 1 to 1,048,576: longer prompts are computed in chunks. Raised to max_num_seqs, since every
  /// generating sequence brings one, and for encoders, which never cut an input, to max_model_len.
  std::int64_t max_num_batched_tokens = 512;
  /// Bytes for weights, KV cache and activations together; nothing: what the machine has free.
  std::optional<std::uint64_t> memory_budget = {};
  /// Bytes for the KV cache, at least a block; nothing: max_num_seqs whole sequences, but a quarter at most of what the
  /// rest leaves free (half of it under a memory_budget), and at least one whole sequence.
  std::optional<std::uint64_t> kv_cache_memory = {};
  /// Whether prompts that begin alike share the cache of that beginning. Results are the same.
  bool prefix_caching = true;
  /// Told the bytes of the store that were read so far and in all, while it is opened; from any thread, one call at a
  /// time. What it throws ends open() with the error `cancelled`.
  std::function<void(std::uint64_t done, std::uint64_t total)> on_load = {};
};

/// One model, on a thread of its own. Move-only and thread-safe: any thread may call any function, but for moving and
/// destroying. Tokens of a request are the same, bit for bit, whatever else the engine serves. One that was moved from
/// may be assigned to or destroyed; what else it is asked ends in invalid_argument, or in zeros.
///
/// A child that a process forks has none of the engine's threads: there it may be destroyed, and nothing else.
class Engine {
 public:
  /// Reads a store, a file or the folder that holds it as model.lamella, and checks every byte of it. Errors: io_error;
  /// invalid_checkpoint; unsupported_model; checkpoint_changed; invalid_argument for an option outside its range;
  /// out_of_memory with the whole table of memory, before a weight is read; cancelled where on_load threw.
  [[nodiscard]] static Result<Engine> open(const std::filesystem::path& store, const EngineOptions& options = {});

  Engine(Engine&& other) noexcept;
  Engine& operator=(Engine&& other) noexcept;
  /// As close(); on the thread of the callbacks, too.
  ~Engine();

  /// Checks a request and queues it. Errors: invalid_argument for what lies outside its range and once the engine is
  /// closed; context_too_long for a prompt, or a prompt plus max_tokens, beyond max_model_len; out_of_memory with the
  /// figures for one that the whole KV cache could not hold, and where the host has no memory for it; engine_dead.
  [[nodiscard]] Result<Stream> submit(Request request);
  /// Checks all requests before the first is queued, then queues them in order. The error names the index of the first
  /// that does not pass; all count as rejected then.
  [[nodiscard]] Result<std::vector<Stream>> submit(std::vector<Request> requests);
  /// As the first, with news for a callback (see OnProgress). Further errors: invalid_argument for an empty callback.
  [[nodiscard]] Result<Subscription> submit(Request request, OnProgress on_progress);

  /// The logits of all positions of `tokens`, [tokens][vocabulary], computed among everybody's requests. Errors: as
  /// submit(); numeric; cancelled where the engine is closed meanwhile.
  [[nodiscard]] Result<std::vector<float>> logits(const std::vector<std::int32_t>& tokens);
  /// For encoders: for each input [hidden], or [tokens][hidden] with Pooling::none. Errors: invalid_argument for models
  /// that are none and for ids outside the vocabulary; context_too_long; numeric. They name the input and lose them
  /// all.
  [[nodiscard]] Result<std::vector<std::vector<float>>> encode(const std::vector<std::vector<std::int32_t>>& inputs,
                                                               Pooling pooling = Pooling::mean);

  [[nodiscard]] Statistics stats() const noexcept;
  /// Token ids lie in [0, vocabulary).
  [[nodiscard]] std::int64_t vocabulary() const noexcept;
  /// Tokens of prompt and result together.
  [[nodiscard]] std::int64_t max_model_len() const noexcept;

  /// Cancels every request, refuses new ones, ends the engine's threads and returns when the callbacks were told.
  /// Streams keep what they have not told yet; stats() goes on to answer. A second call does nothing. Errors:
  /// invalid_argument inside a callback, whose thread it would wait for.
  Result<void> close();

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lamella
