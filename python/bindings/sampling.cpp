// Sampling parameters for Python, and the sampler itself: what an engine does with a row of logits, for checking.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <utility>

#include "arrays.h"
#include "base/check.h"
#include "bindings.h"
#include "cpu/kernels/logit_kernels.h"
#include "runtime/sampler.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

using Ids = std::vector<std::int32_t>;
using Biases = std::vector<std::pair<std::int32_t, float>>;
using LogitRow = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::span<const float> row_of(const LogitRow& logits) { return {logits.data(), logits.size()}; }

template <typename Number>
auto row_to_numpy(std::vector<Number>&& values) {
  const std::size_t size = values.size();
  return to_numpy(std::move(values), {size});
}

void check_tokens(const Ids& tokens, std::size_t vocabulary) {
  for (const std::int32_t token : tokens)
    if (token < 0 || static_cast<std::size_t>(token) >= vocabulary)
      throw Error(ErrorCode::invalid_argument,
                  concat("token ", token, "; the vocabulary has ids 0 to ", vocabulary - 1));
}

/// Those that an engine has by default.
const LogitKernels& best_loops() { return cpu::logit_kernels(cpu::default_kernel_set()); }

/// A Sampler with the buffers it works in; one thread at a time.
class PythonSampler {
 public:
  PythonSampler(const SamplingParams& params, const Ids& prompt, std::int64_t vocabulary, std::uint32_t sample_index)
      : vocabulary_(static_cast<std::size_t>(vocabulary)),
        sampler_(checked(params, prompt, vocabulary), prompt, vocabulary, sample_index) {}

  void accept(std::int32_t token) {
    check_tokens({token}, vocabulary_);
    sampler_.accept(token);
  }
  Sampled next(const LogitRow& logits) { return sampler_.next(checked(logits), scratch_); }
  auto distribution(const LogitRow& logits) { return row_to_numpy(sampler_.distribution(checked(logits), scratch_)); }
  auto processed(const LogitRow& logits) { return row_to_numpy(sampler_.processed(checked(logits), scratch_)); }

 private:
  static SamplingParams checked(const SamplingParams& params, const Ids& prompt, std::int64_t vocabulary) {
    if (vocabulary < 1)
      throw Error(ErrorCode::invalid_argument, concat("vocabulary is ", vocabulary, "; expected at least 1"));
    validate(params, vocabulary);
    check_tokens(prompt, static_cast<std::size_t>(vocabulary));
    return params;
  }
  [[nodiscard]] std::span<const float> checked(const LogitRow& logits) const {
    if (logits.size() != vocabulary_)
      throw Error(ErrorCode::invalid_argument,
                  concat(logits.size(), " logits; expected one for each of ", vocabulary_, " tokens"));
    return row_of(logits);
  }

  std::size_t vocabulary_;
  Sampler sampler_;
  SamplerScratch scratch_{best_loops()};
};

void bind_params(nb::module_& m) {
  using Count = std::optional<std::int32_t>;
  nb::class_<SamplingParams>(m, "SamplingParams", "How the next token is chosen; see lamella.SamplingParams.")
      .def(
          "__init__",
          [](SamplingParams* self, std::int64_t max_tokens, std::int64_t min_tokens, double temperature,
             std::int32_t top_k, double top_p, double min_p, double repetition_penalty, double presence_penalty,
             double frequency_penalty, std::int64_t no_repeat_ngram_size, const Biases& logit_bias,
             Ids allowed_token_ids, std::vector<Ids> bad_words, std::uint64_t seed, std::int32_t n, Count logprobs,
             Count prompt_logprobs, Ids stop_token_ids) {
            auto* params = new (self) SamplingParams{.max_tokens = max_tokens,
                                                     .min_tokens = min_tokens,
                                                     .temperature = temperature,
                                                     .top_k = top_k,
                                                     .top_p = top_p,
                                                     .min_p = min_p,
                                                     .repetition_penalty = repetition_penalty,
                                                     .presence_penalty = presence_penalty,
                                                     .frequency_penalty = frequency_penalty,
                                                     .no_repeat_ngram_size = no_repeat_ngram_size,
                                                     .allowed_token_ids = std::move(allowed_token_ids),
                                                     .bad_words = std::move(bad_words),
                                                     .seed = seed,
                                                     .n = n,
                                                     .logprobs = logprobs,
                                                     .prompt_logprobs = prompt_logprobs,
                                                     .stop_token_ids = std::move(stop_token_ids)};
            for (const auto& [token, bias] : logit_bias) params->logit_bias.push_back({token, bias});
          },
          nb::kw_only(), "max_tokens"_a = 256, "min_tokens"_a = 0, "temperature"_a = 0.0, "top_k"_a = 0,
          "top_p"_a = 1.0, "min_p"_a = 0.0, "repetition_penalty"_a = 1.0, "presence_penalty"_a = 0.0,
          "frequency_penalty"_a = 0.0, "no_repeat_ngram_size"_a = 0, "logit_bias"_a = Biases{},
          "allowed_token_ids"_a = Ids{}, "bad_words"_a = std::vector<Ids>{}, "seed"_a = 0, "n"_a = 1,
          "logprobs"_a = nb::none(), "prompt_logprobs"_a = nb::none(), "stop_token_ids"_a = Ids{})
      .def_ro("max_tokens", &SamplingParams::max_tokens)
      .def_ro("min_tokens", &SamplingParams::min_tokens)
      .def_ro("temperature", &SamplingParams::temperature)
      .def_ro("top_k", &SamplingParams::top_k)
      .def_ro("top_p", &SamplingParams::top_p)
      .def_ro("min_p", &SamplingParams::min_p)
      .def_ro("repetition_penalty", &SamplingParams::repetition_penalty)
      .def_ro("presence_penalty", &SamplingParams::presence_penalty)
      .def_ro("frequency_penalty", &SamplingParams::frequency_penalty)
      .def_ro("no_repeat_ngram_size", &SamplingParams::no_repeat_ngram_size)
      .def_prop_ro("logit_bias",
                   [](const SamplingParams& params) {
                     Biases biases;
                     for (const LogitBias& entry : params.logit_bias) biases.emplace_back(entry.token, entry.bias);
                     return biases;
                   })
      .def_ro("allowed_token_ids", &SamplingParams::allowed_token_ids)
      .def_ro("bad_words", &SamplingParams::bad_words)
      .def_ro("seed", &SamplingParams::seed)
      .def_ro("n", &SamplingParams::n)
      .def_ro("logprobs", &SamplingParams::logprobs)
      .def_ro("prompt_logprobs", &SamplingParams::prompt_logprobs)
      .def_ro("stop_token_ids", &SamplingParams::stop_token_ids);
}

}  // namespace

void bind_sampling(nb::module_& m) {
  bind_params(m);

  nb::class_<TokenLogprob>(m, "TokenLogprob", "A token's log-probability, and its rank by it: 1 is the most probable.")
      .def_ro("token", &TokenLogprob::token)
      .def_ro("logprob", &TokenLogprob::logprob)
      .def_ro("rank", &TokenLogprob::rank);
  nb::class_<Sampled>(m, "Sampled", "A chosen token, and if asked for its log-probability and those of the best ones.")
      .def_ro("token", &Sampled::token)
      .def_ro("logprobs", &Sampled::logprobs);

  nb::class_<PythonSampler>(m, "Sampler", "Chooses the tokens of one sequence from rows of logits; for checking.")
      .def(nb::init<const SamplingParams&, const Ids&, std::int64_t, std::uint32_t>(), "params"_a, "prompt"_a,
           "vocabulary"_a, "sample_index"_a = 0)
      .def("accept", &PythonSampler::accept, "token"_a, "Appends a token to the sequence.")
      .def("next", &PythonSampler::next, "logits"_a, "The token that the engine would choose next.")
      .def("distribution", &PythonSampler::distribution, "logits"_a,
           nb::sig("def distribution(self, logits: numpy.typing.NDArray[numpy.float32]) -> "
                   "numpy.typing.NDArray[numpy.float64]"),
           "Of each token the probability with which `next` chooses it.")
      .def("processed", &PythonSampler::processed, "logits"_a,
           nb::sig("def processed(self, logits: numpy.typing.NDArray[numpy.float32]) -> "
                   "numpy.typing.NDArray[numpy.float32]"),
           "The logits after bias, penalties and masks.");

  m.def(
      "sample",
      [](const LogitRow& logits, const SamplingParams& params, std::uint32_t sample_index, std::int64_t position) {
        validate(params, static_cast<std::int64_t>(logits.size()));
        SamplerScratch scratch(best_loops());
        return Sampler::token_at(position, row_of(logits), params, sample_index, scratch);
      },
      "logits"_a, "params"_a, "sample_index"_a, "position"_a,
      "The token that the engine would choose from these logits at a position of a sequence of which nothing is "
      "known.");
}

}  // namespace lamella
