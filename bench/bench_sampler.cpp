// What it costs to choose a token: microseconds a row, by what the request asks for.
//   bench_sampler [vocabulary [rows]]
// Default: 49152 64. The rows are more than the first caches hold, as those of a step are. Two kinds: peaked, as
// language models give them, and flat, the worst for top_p. LAMELLA_ISA names the instruction set. Prints the best and
// the median of the rounds, and as a roof what copying a row takes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpu/kernels/logit_kernels.h"
#include "lamella/error.h"
#include "runtime/sampler.h"

namespace {

using namespace lamella;

constexpr int rounds = 15;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Seconds {
  double best, median;
};

template <typename Run>
Seconds time_rounds(const Run& run) {
  std::vector<double> seconds(rounds);
  for (double& one : seconds) {
    const double start = now();
    run();
    one = now() - start;
  }
  std::ranges::sort(seconds);
  return {seconds.front(), seconds[rounds / 2]};
}

/// Normal logits; of a peaked row some stand out, down to where they vanish among the rest.
std::vector<float> draw_rows(std::size_t vocabulary, std::size_t rows, bool peaked) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::vector<float> logits(vocabulary * rows);
  for (float& logit : logits) logit = normal(random);
  for (std::size_t row = 0; peaked && row < rows; ++row)
    for (std::size_t i = 0; i < 300; ++i)
      logits[row * vocabulary + random() % vocabulary] += 18.0F / (1.0F + static_cast<float>(i) / 20.0F);
  return logits;
}

struct Case {
  const char* name;
  SamplingParams params;
};

std::vector<Case> all_cases() {
  SamplingParams penalties{.temperature = 1.0, .top_k = 50, .repetition_penalty = 1.1, .presence_penalty = 0.5};
  penalties.frequency_penalty = 0.3;
  penalties.no_repeat_ngram_size = 3;
  penalties.min_tokens = 100;
  penalties.logit_bias = {{5, 1.0F}, {7, -1.0F}};
  penalties.bad_words = {{1, 2, 3}, {9}};
  penalties.stop_token_ids = {2};
  SamplingParams told;
  told.logprobs = 5;
  return {{"greedy", {}},
          {"temperature", {.temperature = 1.0}},
          {"top_k 50", {.temperature = 1.0, .top_k = 50}},
          {"top_k 5000", {.temperature = 1.0, .top_k = 5000}},
          {"top_p 0.9", {.temperature = 1.0, .top_p = 0.9}},
          {"top_p 0.9, temperature 50", {.temperature = 50.0, .top_p = 0.9}},
          {"top_k 50, top_p 0.9", {.temperature = 1.0, .top_k = 50, .top_p = 0.9}},
          {"min_p 0.05", {.temperature = 1.0, .min_p = 0.05}},
          {"all penalties, top_k 50", penalties},
          {"greedy, logprobs 5", told}};
}

void report(std::size_t vocabulary, std::size_t rows, bool peaked, const LogitKernels& kernels) {
  const std::vector<float> logits = draw_rows(vocabulary, rows, peaked);
  std::vector<float> copy(vocabulary);
  const Seconds roof = time_rounds([&] {
    for (std::size_t row = 0; row < rows; ++row)
      std::memcpy(copy.data(), logits.data() + row * vocabulary, vocabulary * sizeof(float));
  });
  std::printf("%s, %zu tokens, %zu rows; copying a row: %.1f us\n", peaked ? "peaked" : "flat", vocabulary, rows,
              roof.best * 1e6 / static_cast<double>(rows));
  std::mt19937 random(6);
  std::vector<std::int32_t> prompt(1000);
  for (std::int32_t& token : prompt) token = static_cast<std::int32_t>(random() % vocabulary);
  for (const Case& one : all_cases()) {
    validate(one.params, static_cast<std::int64_t>(vocabulary));
    std::vector<Sampler> samplers;
    for (std::size_t row = 0; row < rows; ++row)
      samplers.emplace_back(one.params, prompt, static_cast<std::int64_t>(vocabulary), static_cast<std::uint32_t>(row));
    SamplerScratch scratch(kernels);
    const Seconds seconds = time_rounds([&] {
      for (std::size_t row = 0; row < rows; ++row)
        samplers[row].accept(samplers[row].next({logits.data() + row * vocabulary, vocabulary}, scratch).token);
    });
    const double each = 1e6 / static_cast<double>(rows);
    std::printf("  %-28s best %8.1f us, median %8.1f us a row\n", one.name, seconds.best * each, seconds.median * each);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t vocabulary = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 49152;
  const std::size_t rows = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 64;
  if (vocabulary < 10000 || rows < 1) {
    std::fprintf(stderr, "usage: bench_sampler [vocabulary from 10000 [rows]]\n");
    return 2;
  }
  try {
    const cpu::KernelSet set = cpu::default_kernel_set();
    std::printf("%s\n", cpu::to_string(set));
    for (const bool peaked : {true, false}) report(vocabulary, rows, peaked, cpu::logit_kernels(set));
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
