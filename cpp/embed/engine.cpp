#include "lamella/engine.h"

#include <sys/types.h>
#include <unistd.h>

#include <utility>

#include "base/check.h"
#include "cpu/cpu_device.h"
#include "embed/border.h"
#include "embed/callback_thread.h"
#include "embed/stream_impl.h"
#include "runtime/store_engine.h"

namespace lamella {
namespace {

EngineConfig config_from(const EngineOptions& options, const PackedStore& store) {
  EngineConfig config = config_of(store);
  if (options.dtype) {
    if (*options.dtype == DataType::i32 || *options.dtype == DataType::i8)
      throw Error(ErrorCode::invalid_argument,
                  concat("dtype is ", to_string(*options.dtype), "; expected float32, float16 or bfloat16"));
    config.dtype = *options.dtype;
  }
  config.parallel.tensor = options.tensor_parallel_size;
  config.parallel.pipeline = options.pipeline_parallel_size;
  config.kv_cache_dtype = options.kv_cache_dtype;
  config.max_num_seqs = options.max_num_seqs;
  config.max_model_len = options.max_model_len;
  config.max_num_batched_tokens = options.max_num_batched_tokens;
  config.memory_budget = options.memory_budget;
  config.kv_cache_memory = options.kv_cache_memory;
  config.prefix_caching = options.prefix_caching;
  return config;
}

LoadProgress told_to(const EngineOptions& options) {
  if (!options.on_load) return {};
  return [&told = options.on_load](std::uint64_t done, std::uint64_t total) {
    try {
      told(done, total);
    } catch (...) {
      throw Error(ErrorCode::cancelled, concat("on_load threw, so the store was not opened: ", handled_text()));
    }
  };
}

}  // namespace

struct Engine::Impl {
  explicit Impl(std::unique_ptr<EngineCore> engine)
      : core(std::move(engine)), callbacks(std::make_shared<CallbackThread>(core->client())), owner(getpid()) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    if (getpid() == owner) close();  // a forked child has no thread to wait for
  }

  void close() {
    core->close();
    callbacks->finish();
  }

  /// Of an engine that was not moved from.
  static Impl& of(const std::unique_ptr<Impl>& impl) {
    if (!impl) throw Error(ErrorCode::invalid_argument, "this engine was moved to another one");
    return *impl;
  }

  std::unique_ptr<EngineCore> core;
  std::shared_ptr<CallbackThread> callbacks;
  const pid_t owner;
};

Engine::Engine(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Engine::Engine(Engine&& other) noexcept = default;
Engine& Engine::operator=(Engine&& other) noexcept = default;
Engine::~Engine() = default;

Result<Engine> Engine::open(const std::filesystem::path& store, const EngineOptions& options) {
  return guarded([&] {
    const PackedStore opened = open_store(store);
    const EngineConfig config = config_from(options, opened);
    std::unique_ptr<EngineCore> core = engine_from_store(
        opened, config, cpu::cpu_devices(opened.header.model, config.parallel, {.threads = options.threads}),
        told_to(options));
    return Engine(std::make_unique<Impl>(std::move(core)));
  });
}

// ---- requests -------------------------------------------------------------------------------------------------------

Result<Stream> Engine::submit(Request request) {
  return guarded([&] {
    auto stream = std::make_unique<Stream::Impl>(Impl::of(impl_).core->client());
    stream->id = stream->client.submit(std::move(request));
    return Stream(std::move(stream));
  });
}

Result<std::vector<Stream>> Engine::submit(std::vector<Request> requests) {
  return guarded([&] {
    const EngineCore& core = *Impl::of(impl_).core;
    core.client().validate(requests);
    std::vector<Stream> streams;  // one that is not handed out cancels its request
    streams.reserve(requests.size());
    for (Request& request : requests) streams.push_back(submit(std::move(request)).value());
    return streams;
  });
}

Result<Subscription> Engine::submit(Request request, OnProgress on_progress) {
  return guarded([&] {
    auto subscription = std::make_unique<Subscription::Impl>(Impl::of(impl_).callbacks);
    subscription->told = subscription->callbacks->submit(std::move(request), std::move(on_progress));
    return Subscription(std::move(subscription));
  });
}

// ---- whole inputs at once -------------------------------------------------------------------------------------------

Result<std::vector<float>> Engine::logits(const std::vector<std::int32_t>& tokens) {
  return guarded([&] { return Impl::of(impl_).core->logits(tokens); });
}

Result<std::vector<std::vector<float>>> Engine::encode(const std::vector<std::vector<std::int32_t>>& inputs,
                                                       Pooling pooling) {
  return guarded([&] { return Impl::of(impl_).core->encode(inputs, pooling); });
}

// ---- the engine itself ----------------------------------------------------------------------------------------------

Statistics Engine::stats() const noexcept {
  if (!impl_) return {};
  const EngineStats stats = impl_->core->stats();
  const RequestCounts& requests = stats.requests;
  const LoopCounts& loop = stats.loop;
  return {.received = requests.received,
          .running = requests.running,
          .finished = requests.finished,
          .cancelled = requests.cancelled,
          .rejected = requests.rejected,
          .failed = requests.failed,
          .kv_blocks_total = stats.kv_blocks_total,
          .kv_blocks_used = loop.kv_blocks_used,
          .kv_blocks_kept = loop.kv_blocks_kept,
          .steps = loop.steps,
          .preemptions = loop.preemptions,
          .reused_tokens = loop.reused_tokens,
          .step_s = loop.step_s,
          .executor_s = loop.executor_s,
          .bytes_weights = stats.bytes_weights,
          .bytes_kv = stats.bytes_kv,
          .bytes_activations = stats.bytes_activations};
}

std::int64_t Engine::vocabulary() const noexcept { return impl_ ? impl_->core->spec().vocab : 0; }

std::int64_t Engine::max_model_len() const noexcept { return impl_ ? impl_->core->config().max_model_len : 0; }

Result<void> Engine::close() {
  return guarded([&] {
    Impl& impl = Impl::of(impl_);
    if (impl.callbacks->is_this_thread())
      throw Error(ErrorCode::invalid_argument, "close() was called inside a callback, whose thread it waits for");
    impl.close();
  });
}

}  // namespace lamella
