// The engine for Python: requests in, progress out, arrays for checking. The GIL is released wherever the core
// computes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <functional>

#include "arrays.h"
#include "base/check.h"
#include "bindings.h"
#include "cpu/cpu_device.h"
#include "cpu/machine.h"
#include "gil.h"
#include "progress.h"
#include "runtime/client.h"
#include "runtime/engine_core.h"
#include "runtime/store_engine.h"
#include "store/load_weights.h"
#include "store/random_weights.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

using Ids = std::vector<std::int32_t>;
using FloatArray = nb::ndarray<nb::numpy, float>;

cpu::CpuOptions cpu_options(int threads, const std::optional<std::string>& kernels) {
  cpu::CpuOptions options{.threads = threads};
  if (kernels) options.kernels = cpu::kernel_set_named(*kernels, "kernels");
  return options;
}

std::unique_ptr<EngineCore> make_engine(const ModelSpec& spec, const EngineConfig& config, int threads,
                                        const std::optional<std::string>& kernels,
                                        const EngineCore::FillWeights& fill) {
  return std::make_unique<EngineCore>(spec, config,
                                      cpu::cpu_devices(spec, config.parallel, cpu_options(threads, kernels)), fill);
}

/// A checkpoint's weights.
std::unique_ptr<EngineCore> open_engine(const ModelSpec& spec, const LoadRecipe& recipe, const io::TensorTable& tensors,
                                        const EngineConfig& config, int threads,
                                        const std::optional<std::string>& kernels, const ProgressFunction& progress) {
  const GilReleased others_may_run;
  PythonProgress told(progress);
  io::PreadReader reader;
  return make_engine(spec, config, threads, kernels, [&](RankWeights ranks, ThreadTeam& team) {
    load_weights(ranks, recipe, tensors, reader, team, std::ref(told));
  });
}

std::unique_ptr<EngineCore> open_store_engine(const PackedStore& store, const EngineConfig& config, int threads,
                                              const std::optional<std::string>& kernels,
                                              const ProgressFunction& progress) {
  const GilReleased others_may_run;
  PythonProgress told(progress);
  return engine_from_store(store, config,
                           cpu::cpu_devices(store.header.model, config.parallel, cpu_options(threads, kernels)),
                           std::ref(told));
}

std::unique_ptr<EngineCore> random_engine(const ModelSpec& spec, std::uint64_t seed, const EngineConfig& config,
                                          int threads, const std::optional<std::string>& kernels) {
  const GilReleased others_may_run;
  return make_engine(spec, config, threads, kernels,
                     [&](RankWeights ranks, ThreadTeam& team) { fill_random_weights(ranks, seed, team); });
}

FloatArray engine_logits(EngineCore& engine, const Ids& tokens) {
  std::vector<float> values;
  {
    const GilReleased others_may_run;
    values = engine.logits(tokens, SignalWatch());
  }
  return to_numpy(std::move(values), {tokens.size(), static_cast<std::size_t>(engine.spec().vocab)});
}

nb::list engine_encode(EngineCore& engine, const std::vector<Ids>& inputs, Pooling pooling,
                       const ProgressFunction& told) {
  std::vector<std::vector<float>> results;
  {
    const GilReleased others_may_run;
    PythonProgress progress(told);
    results = engine.encode(inputs, pooling, [&](std::size_t done) { progress(done, inputs.size()); });
  }
  const auto hidden = static_cast<std::size_t>(engine.spec().hidden);
  nb::list arrays;
  for (std::vector<float>& result : results) {
    const std::size_t rows = result.size() / hidden;
    arrays.append(pooling == Pooling::none ? to_numpy(std::move(result), {rows, hidden})
                                           : to_numpy(std::move(result), {hidden}));
  }
  return arrays;
}

void bind_requests(nb::module_& m) {
  nb::class_<Request>(m, "Request", "Token ids and how to go on from them.")
      .def(
          "__init__",
          [](Request* self, Ids prompt, SamplingParams sampling) {
            new (self) Request{std::move(prompt), std::move(sampling)};
          },
          "prompt"_a, "sampling"_a)
      .def_ro("prompt", &Request::prompt)
      .def_ro("sampling", &Request::sampling);

  nb::class_<Progress>(m, "Progress", "What is new about one choice of a request.")
      .def_ro("id", &Progress::id)
      .def_ro("choice", &Progress::choice)
      .def_ro("new_tokens", &Progress::new_tokens)
      .def_ro("times_s", &Progress::times_s, "Of each new token: seconds from submission to the end of its step.")
      .def_ro("logprobs", &Progress::logprobs)
      .def_ro("prompt_logprobs", &Progress::prompt_logprobs)
      .def_prop_ro(
          "reason", [](const Progress& progress) { return std::string(to_string(progress.reason)); },
          "running, stop, length, cancelled or error")
      .def_prop_ro("finished", [](const Progress& progress) { return progress.reason != FinishReason::running; })
      .def_prop_ro("error",
                   [](const Progress& progress) -> std::optional<std::string> {
                     return progress.error ? std::optional<std::string>(progress.error->what()) : std::nullopt;
                   })
      .def_prop_ro("error_code",
                   [](const Progress& progress) -> std::optional<std::string> {
                     return progress.error ? std::optional<std::string>(to_string(progress.error->code()))
                                           : std::nullopt;
                   })
      .def_ro("first_token_s", &Progress::first_token_s);

  using Released = nb::call_guard<GilReleased>;
  nb::class_<Client>(m, "Client", "A caller's end of the engine's queue. When it goes, its requests are cancelled.")
      .def(
          "submit", [](Client& client, std::vector<Request> requests) { return client.submit(std::move(requests)); },
          "requests"_a, Released(),
          "Checks all requests, then queues them; their ids. An error names the index of the first that does not pass.")
      .def(
          "wait",
          [](Client& client, double timeout_s, bool for_ends) {
            return client.wait(timeout_s, for_ends ? Hear::ends : Hear::everything);
          },
          "timeout_s"_a, "for_ends"_a = false, Released(),
          "What is new, after at most so many seconds; [] then, and where no request is open. `for_ends`: a choice's "
          "end "
          "ends the waiting, a token does not.")
      .def("cancel", &Client::cancel, "id"_a, Released(), "The request ends before its next step.")
      .def("stop", &Client::stop, "id"_a, "choice"_a, Released(),
           "The choice ends as finished before its next step: what it has said is enough.")
      .def("leave", &Client::leave, Released(), "Cancels all requests and forgets them.")
      .def_prop_ro("open", &Client::open, "Requests whose end was not told yet.")
      .def("event_fd", &Client::event_fd, "A descriptor that polls as readable while there is news.");
}

void bind_records(nb::module_& m) {
  nb::class_<EngineConfig>(m, "EngineConfig", "Limits and switches of an engine; see lamella.Engine.")
      .def(
          "__init__",
          [](EngineConfig* self, DataType dtype, std::optional<DataType> kv_cache_dtype,
             std::vector<WeightFormat> weight_formats, bool deep_fusion, bool sbi_gemm, std::int64_t max_num_seqs,
             std::int64_t max_model_len, std::int64_t max_num_batched_tokens,
             std::optional<std::uint64_t> memory_budget, std::optional<std::uint64_t> kv_cache_memory,
             bool prefix_caching, int tensor_parallel_size, int pipeline_parallel_size,
             const std::string& pipeline_schedule, int prompt_micro_batches, int generation_micro_batches) {
            new (self) EngineConfig{.parallel = {.tensor = tensor_parallel_size, .pipeline = pipeline_parallel_size},
                                    .dtype = dtype,
                                    .kv_cache_dtype = kv_cache_dtype,
                                    .weight_formats = std::move(weight_formats),
                                    .deep_fusion = deep_fusion,
                                    .sbi_gemm = sbi_gemm,
                                    .max_num_seqs = max_num_seqs,
                                    .max_model_len = max_model_len,
                                    .max_num_batched_tokens = max_num_batched_tokens,
                                    .memory_budget = memory_budget,
                                    .kv_cache_memory = kv_cache_memory,
                                    .prefix_caching = prefix_caching,
                                    .pipeline = {.schedule = pipeline_schedule_named(pipeline_schedule),
                                                 .prompt_micro_batches = prompt_micro_batches,
                                                 .generation_micro_batches = generation_micro_batches}};
          },
          nb::kw_only(), "dtype"_a, "kv_cache_dtype"_a.none(), "weight_formats"_a, "deep_fusion"_a, "sbi_gemm"_a = true,
          "max_num_seqs"_a, "max_model_len"_a, "max_num_batched_tokens"_a, "memory_budget"_a = nb::none(),
          "kv_cache_memory"_a = nb::none(), "prefix_caching"_a = true, "tensor_parallel_size"_a = 1,
          "pipeline_parallel_size"_a = 1, "pipeline_schedule"_a = "hybrid", "prompt_micro_batches"_a = 0,
          "generation_micro_batches"_a = 0,
          "`weight_formats` has one entry a declared weight, in their order (choose_formats); empty: all as dtype.")
      .def_ro("dtype", &EngineConfig::dtype)
      .def_ro("kv_cache_dtype", &EngineConfig::kv_cache_dtype)
      .def_ro("weight_formats", &EngineConfig::weight_formats)
      .def_ro("deep_fusion", &EngineConfig::deep_fusion)
      .def_ro("sbi_gemm", &EngineConfig::sbi_gemm)
      .def_ro("max_num_seqs", &EngineConfig::max_num_seqs)
      .def_ro("max_model_len", &EngineConfig::max_model_len)
      .def_ro("max_num_batched_tokens", &EngineConfig::max_num_batched_tokens)
      .def_ro("memory_budget", &EngineConfig::memory_budget)
      .def_ro("kv_cache_memory", &EngineConfig::kv_cache_memory)
      .def_ro("prefix_caching", &EngineConfig::prefix_caching)
      .def_prop_ro("tensor_parallel_size", [](const EngineConfig& config) { return config.parallel.tensor; })
      .def_prop_ro("pipeline_parallel_size", [](const EngineConfig& config) { return config.parallel.pipeline; });

  nb::class_<EngineStats>(m, "EngineStats", "Counters of an engine.")
      .def_ro("kv_blocks_total", &EngineStats::kv_blocks_total)
      .def_prop_ro("received", [](const EngineStats& stats) { return stats.requests.received; })
      .def_prop_ro("running", [](const EngineStats& stats) { return stats.requests.running; })
      .def_prop_ro("finished", [](const EngineStats& stats) { return stats.requests.finished; })
      .def_prop_ro("cancelled", [](const EngineStats& stats) { return stats.requests.cancelled; })
      .def_prop_ro("rejected", [](const EngineStats& stats) { return stats.requests.rejected; })
      .def_prop_ro("failed", [](const EngineStats& stats) { return stats.requests.failed; })
      .def_prop_ro("kv_blocks_used", [](const EngineStats& stats) { return stats.loop.kv_blocks_used; })
      .def_prop_ro("kv_blocks_kept", [](const EngineStats& stats) { return stats.loop.kv_blocks_kept; })
      .def_prop_ro("steps", [](const EngineStats& stats) { return stats.loop.steps; })
      .def_prop_ro("step_s", [](const EngineStats& stats) { return stats.loop.step_s; })
      .def_prop_ro("executor_s", [](const EngineStats& stats) { return stats.loop.executor_s; })
      .def_prop_ro("preemptions", [](const EngineStats& stats) { return stats.loop.preemptions; })
      .def_prop_ro("reused_tokens", [](const EngineStats& stats) { return stats.loop.reused_tokens; })
      .def_ro("bytes_weights", &EngineStats::bytes_weights)
      .def_ro("bytes_kv", &EngineStats::bytes_kv)
      .def_ro("bytes_activations", &EngineStats::bytes_activations);

  nb::enum_<Pooling>(m, "Pooling")
      .value("none", Pooling::none)
      .value("mean", Pooling::mean)
      .value("cls", Pooling::cls)
      .value("pooler", Pooling::pooler);
}

}  // namespace

void bind_engine(nb::module_& m) {
  bind_requests(m);
  bind_records(m);
  using Released = nb::call_guard<GilReleased>;

  nb::class_<EngineCore>(m, "Engine", "The native engine; lamella.Engine wraps it.")
      .def("client", &EngineCore::client, "Another client of the engine's queue.")
      .def(
          "validate_requests",
          [](const EngineCore& engine, const std::vector<Request>& requests) { engine.client().validate(requests); },
          "requests"_a, Released(),
          "What Client.submit checks, without submitting: requests that do not pass count as rejected, all of them.")
      .def("close", &EngineCore::close, Released(),
           "Cancels every request, refuses new ones and ends the engine's thread.")
      .def("logits", engine_logits, "tokens"_a, "Float32 array [tokens, vocabulary].")
      .def(
          "encode", engine_encode, "inputs"_a, "pooling"_a, "progress"_a = nb::none(),
          nb::sig("def encode(self, inputs: collections.abc.Sequence[collections.abc.Sequence[int]], pooling: Pooling, "
                  "progress: collections.abc.Callable[[int, int], None] | None = None) -> "
                  "list[numpy.typing.NDArray[numpy.float32]]"),
          "Float32 arrays, one an input. `progress` is called with (inputs done, inputs in all).")
      .def("explain", &EngineCore::explain, "shape"_a, Released())
      .def("roofline", &EngineCore::roofline, Released(), nb::rv_policy::copy)
      .def(
          "plan_tables",
          [](const EngineCore& engine) {
            std::vector<std::string> tables;
            for (const Plan* plan : engine.plans()) tables.push_back(to_table(*plan));
            return tables;
          },
          "The plan of each pipeline stage's first rank, as a table.")
      .def("record_stage_runs", &EngineCore::record_stage_runs, "record"_a, Released(),
           "Keeps from now on when each stage ran which step; what was kept before is forgotten.")
      .def("stage_runs", &EngineCore::stage_runs, Released(), "What was kept, in order of the runs' ends.")
      .def(
          "step_times",
          [](const EngineCore& engine) {
            const StepTimes times = engine.step_times();
            return std::make_pair(times.fixed_s, times.token_s);
          },
          Released(),
          "(seconds of a step of the first stage, and seconds more for each of its tokens), as learnt so far.")
      .def("stats", &EngineCore::stats)
      .def_prop_ro("config", &EngineCore::config)
      .def_prop_ro("spec", &EngineCore::spec)
      .def(
          "micro_batches",
          [](const EngineCore& engine, std::int64_t prompt_tokens, std::int64_t sequences) {
            const MicroBatches counts = engine.micro_batches({.prompt_tokens = prompt_tokens, .sequences = sequences});
            return std::make_pair(counts.prompt, counts.generation);
          },
          "prompt_tokens"_a, "sequences"_a, Released(),
          "(of prompts, of generation): into how many micro-batches a pipeline would cut so much now.")
      .def_prop_ro("device_name", [](const EngineCore& engine) { return engine.ranks().device_name(); })
      .def_prop_ro(
          "threads", [](const EngineCore& engine) { return engine.ranks().threads(); }, "Of all ranks together.");

  m.def("open_engine", open_engine, "spec"_a, "recipe"_a, "tensors"_a, "config"_a, "threads"_a = 0,
        "kernels"_a = nb::none(), "progress"_a = nb::none(), "An engine with a checkpoint's weights.");
  m.def("open_store_engine", open_store_engine, "store"_a, "config"_a, "threads"_a = 0, "kernels"_a = nb::none(),
        "progress"_a = nb::none(), "An engine with a packed store's weights; `config` has the store's formats.");
  m.def("random_engine", random_engine, "spec"_a, "seed"_a, "config"_a, "threads"_a = 0, "kernels"_a = nb::none(),
        "An engine with random weights: for shapes without a checkpoint.");
  m.def("usable_cores", &cpu::usable_cores, "Cores that affinity and cgroup limits leave to this process.");
  m.def("processor_name", &cpu::processor_name);
  m.def("available_memory", &cpu::available_memory, "Bytes of memory free for this process, cgroup limits included.");
  m.def(
      "kernel_sets",
      [] {
        std::vector<std::string> names;
        for (const cpu::KernelSet set : cpu::available_kernel_sets()) names.emplace_back(cpu::to_string(set));
        return names;
      },
      "Kernel sets that this machine runs, best last.");
  m.def(
      "bandwidth_buffer", [] { return cpu::bandwidth_buffer(cpu::available_memory(), std::nullopt); },
      "Bytes that `measure_read_bandwidth` takes now: 1 GiB, or a quarter of the memory available; 0 for too little.");
  m.def(
      "measure_read_bandwidth",
      [](int threads) -> std::optional<double> {
        const std::size_t bytes = cpu::bandwidth_buffer(cpu::available_memory(), std::nullopt);
        if (bytes == 0) return std::nullopt;
        return cpu::measure_read_bandwidth(threads, bytes);
      },
      "threads"_a, Released(), "Bytes/s that this many threads read from memory; None where too little of it is free.");
  m.def(
      "measure_peak",
      [](const std::string& arithmetic, int threads) {
        for (const Arithmetic each : {Arithmetic::f32, Arithmetic::bf16, Arithmetic::int8})
          if (arithmetic == to_string(each)) return cpu::measure_peak(cpu::default_kernel_set(), each, threads);
        throw Error(ErrorCode::invalid_argument,
                    concat("arithmetic is ", quoted(arithmetic), "; expected f32, bf16 or int8"));
      },
      "arithmetic"_a, "threads"_a, Released(),
      "Operations a second of this many threads, from registers: multiply-adds (two operations) of 'f32', of pairs of "
      "'bf16', of quads of 'int8'.");
  m.def("measure_core_latency", &cpu::measure_core_latency, Released(),
        "Seconds until a core sees another's store; None with one core.");
  m.def("measure_barrier", &cpu::measure_barrier, "threads"_a, Released(),
        "Seconds that this many threads take to meet at a barrier, with nothing to do in between.");
}

}  // namespace lamella
