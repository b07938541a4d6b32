// The C interface's engine and streams.
#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "embed/c_error.h"
#include "embed/c_news.h"
#include "embed/c_requests.h"
#include "embed/c_struct.h"
#include "lamella/engine.h"
#include "runtime/request_rules.h"

struct lamella_engine {
  lamella::Engine engine;
};

struct lamella_stream {
  lamella::Stream stream;
};

namespace lamella {
namespace {

lamella_engine_options c_defaults() {
  const EngineOptions own;
  lamella_engine_options options{};
  options.struct_size = sizeof options;
  options.threads = own.threads;
  options.dtype = LAMELLA_DTYPE_AUTO;
  options.kv_cache_dtype = LAMELLA_DTYPE_AUTO;
  options.max_num_seqs = own.max_num_seqs;
  options.max_model_len = own.max_model_len;
  options.max_num_batched_tokens = own.max_num_batched_tokens;
  options.prefix_caching = own.prefix_caching ? 1 : 0;
  options.tensor_parallel_size = own.tensor_parallel_size;
  options.pipeline_parallel_size = own.pipeline_parallel_size;
  return options;
}

std::optional<DataType> dtype_from(const char* field, std::int32_t dtype) {
  switch (dtype) {
    case LAMELLA_DTYPE_AUTO: return std::nullopt;
    case LAMELLA_DTYPE_F32: return DataType::f32;
    case LAMELLA_DTYPE_F16: return DataType::f16;
    case LAMELLA_DTYPE_BF16: return DataType::bf16;
    case LAMELLA_DTYPE_I8: return DataType::i8;
    default:
      throw Error(ErrorCode::invalid_argument, concat(field, " is ", dtype, "; expected a LAMELLA_DTYPE_ constant"));
  }
}

EngineOptions options_from(const lamella_engine_options& options) {
  const auto bytes = [](std::uint64_t count) { return count == 0 ? std::nullopt : std::optional(count); };
  if (options.prefix_caching != 0 && options.prefix_caching != 1)
    throw Error(ErrorCode::invalid_argument, concat("prefix_caching is ", options.prefix_caching, "; expected 0 or 1"));
  return {.threads = options.threads,
          .tensor_parallel_size = options.tensor_parallel_size,
          .pipeline_parallel_size = options.pipeline_parallel_size,
          .dtype = dtype_from("dtype", options.dtype),
          .kv_cache_dtype = dtype_from("kv_cache_dtype", options.kv_cache_dtype),
          .max_num_seqs = options.max_num_seqs,
          .max_model_len = options.max_model_len,
          .max_num_batched_tokens = options.max_num_batched_tokens,
          .memory_budget = bytes(options.memory_budget),
          .kv_cache_memory = bytes(options.kv_cache_memory),
          .prefix_caching = options.prefix_caching == 1};
}

std::vector<Request> requests_from(const lamella_request* requests, std::size_t count) {
  std::vector<const lamella_request*> each(count);
  std::iota(each.begin(), each.end(), requests);
  std::vector<Request> own;
  own.reserve(count);
  validate_each("request", each, [&](const lamella_request* request) { own.push_back(request_from(*request)); });
  return own;
}

}  // namespace
}  // namespace lamella

using lamella::c_guarded;
using lamella::not_null;

extern "C" {

// ---- the engine -----------------------------------------------------------------------------------------------------

void lamella_engine_options_init(lamella_engine_options* options, size_t struct_size) {
  if (options != nullptr) lamella::given_back(lamella::c_defaults(), options, struct_size);
}

lamella_code lamella_engine_open(const char* store, const lamella_engine_options* options, lamella_engine** engine) {
  return c_guarded([&] {
    not_null(engine, "engine") = nullptr;
    lamella_engine_options asked = lamella::c_defaults();
    if (options != nullptr) asked = lamella::taken(*options, asked, "lamella_engine_options");
    lamella::Engine own = lamella::Engine::open(&not_null(store, "store"), lamella::options_from(asked)).value();
    *engine = std::make_unique<lamella_engine>(std::move(own)).release();
  });
}

lamella_code lamella_engine_close(lamella_engine* engine) {
  return c_guarded([&] { not_null(engine, "engine").engine.close().value(); });
}

void lamella_engine_free(lamella_engine* engine) { const std::unique_ptr<lamella_engine> freed(engine); }

int64_t lamella_engine_vocabulary(const lamella_engine* engine) {
  return engine == nullptr ? 0 : engine->engine.vocabulary();
}

int64_t lamella_engine_max_model_len(const lamella_engine* engine) {
  return engine == nullptr ? 0 : engine->engine.max_model_len();
}

lamella_code lamella_engine_statistics(const lamella_engine* engine, lamella_statistics* statistics) {
  return c_guarded([&] {
    const lamella::Statistics own = not_null(engine, "engine").engine.stats();
    const std::size_t size = lamella::size_of_struct(not_null(statistics, "statistics"), "lamella_statistics");
    lamella::given_back({.struct_size = size,
                         .received = own.received,
                         .running = own.running,
                         .finished = own.finished,
                         .cancelled = own.cancelled,
                         .rejected = own.rejected,
                         .failed = own.failed,
                         .kv_blocks_total = own.kv_blocks_total,
                         .kv_blocks_used = own.kv_blocks_used,
                         .kv_blocks_kept = own.kv_blocks_kept,
                         .steps = own.steps,
                         .preemptions = own.preemptions,
                         .reused_tokens = own.reused_tokens,
                         .step_s = own.step_s,
                         .executor_s = own.executor_s,
                         .bytes_weights = own.bytes_weights,
                         .bytes_kv = own.bytes_kv,
                         .bytes_activations = own.bytes_activations},
                        statistics, size);
  });
}

// ---- streams --------------------------------------------------------------------------------------------------------

lamella_code lamella_submit(lamella_engine* engine, const lamella_request* requests, size_t count,
                            lamella_stream** streams) {
  return c_guarded([&] {
    if (count == 0) return;
    not_null(streams, "streams");
    std::fill_n(streams, count, nullptr);
    lamella::Engine& own = not_null(engine, "engine").engine;
    std::vector<std::unique_ptr<lamella_stream>> made;
    made.reserve(count);
    for (lamella::Stream& stream : own.submit(lamella::requests_from(&not_null(requests, "requests"), count)).value())
      made.push_back(std::make_unique<lamella_stream>(std::move(stream)));
    for (std::size_t i = 0; i < count; ++i) streams[i] = made[i].release();
  });
}

uint64_t lamella_stream_id(const lamella_stream* stream) { return stream == nullptr ? 0 : stream->stream.id(); }

void lamella_stream_cancel(lamella_stream* stream) {
  if (stream != nullptr) stream->stream.cancel();
}

void lamella_stream_stop(lamella_stream* stream, int32_t choice) {
  if (stream != nullptr) stream->stream.stop(choice);
}

int32_t lamella_stream_finished(const lamella_stream* stream) {
  return stream == nullptr || stream->stream.finished() ? 1 : 0;
}

lamella_code lamella_stream_event_fd(lamella_stream* stream, int* event_fd) {
  return c_guarded([&] { not_null(event_fd, "event_fd") = not_null(stream, "stream").stream.event_fd().value(); });
}

lamella_code lamella_stream_next(lamella_stream* stream, double timeout_s, lamella_news** news) {
  return c_guarded([&] {
    not_null(news, "news") = nullptr;
    lamella::Stream& own = not_null(stream, "stream").stream;
    auto taken = std::make_unique<lamella_news>();  // first, so that no news are lost for want of it
    taken->items = own.next(lamella::Seconds(timeout_s)).value();
    *news = taken.release();
  });
}

void lamella_stream_free(lamella_stream* stream) { const std::unique_ptr<lamella_stream> freed(stream); }

}  // extern "C"
