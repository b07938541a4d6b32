// Attention over the paged KV cache: decoding against the read bandwidth, prompts against the register peak of the
// arithmetic that suits the types (fp32; bf16 pairs for a bf16 engine; bytes for an int8 cache, which multiplies twice).
//   bench_attention [heads kv_heads head_dim threads [set [cases [decode|prompt lengths...]]]]
// Default: llama-3.2-1b's 32 heads on 8 of 64, all cores, the best set, all cases (a list as "bf16,f32"), decoding with
// 128, 1024 and 4096 tokens of KV and prompts of 128, 512 and 2048. Decoding walks more layers than caches hold, in
// blocks that lie scattered over the pool. FLOPs of prompts are those that the causal mask leaves.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/thread_team.h"
#include "bench_arguments.h"
#include "cpu/machine.h"
#include "lamella/error.h"
#include "memory/allocation.h"

namespace {

using namespace lamella;
using namespace lamella::cpu;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Problem {
  std::int64_t heads = 32, kv_heads = 8, head_dim = 64;
  int threads = usable_cores();
};

struct Case {
  const char* name;
  DataType dtype, kv;  // of the engine, and of its KV cache
  Arithmetic arithmetic;
};
constexpr Case all_cases[] = {
    {"f32", DataType::f32, DataType::f32, Arithmetic::f32},
    {"f16", DataType::f16, DataType::f16, Arithmetic::f32},
    {"bf16", DataType::bf16, DataType::bf16, Arithmetic::bf16},
    {"int8", DataType::bf16, DataType::i8, Arithmetic::int8},
};

/// A step of one sequence: `past` tokens in the cache of every layer, and `tokens` new ones.
class Step {
 public:
  Step(const Problem& problem, KernelSet set, const Case& one, std::int64_t past, std::int64_t tokens,
       std::int64_t layers)
      : problem_(problem),
        kernels_(kernel_table(set, one.dtype)),
        type_(one.kv),
        tokens_(tokens),
        layers_(layers),
        blocks_((past + tokens + kv_block_tokens - 1) / kv_block_tokens),
        block_bytes_(static_cast<std::size_t>(2 * problem.kv_heads * kv_plane_bytes(one.kv, problem.head_dim))),
        cache_(block_bytes_ * static_cast<std::size_t>(blocks_ * layers), "KV cache"),
        query_(static_cast<std::size_t>(tokens * problem.heads * problem.head_dim * 4), "queries"),
        y_(query_.size(), "y"),
        tables_(static_cast<std::size_t>(blocks_ * layers)),
        positions_(static_cast<std::size_t>(tokens)),
        span_{0, static_cast<std::int32_t>(tokens)} {
    // Values do not matter, denormals and untouched pages would: numbers near 1 in every type.
    std::fill_n(reinterpret_cast<std::uint32_t*>(cache_.data()), cache_.size() / 4, 0x3f803f80u);
    std::fill_n(reinterpret_cast<std::uint32_t*>(query_.data()), query_.size() / 4, 0x3c003c00u);
    std::iota(tables_.begin(), tables_.end(), 0);
    std::shuffle(tables_.begin(), tables_.end(), std::mt19937(1));
    std::iota(positions_.begin(), positions_.end(), static_cast<std::int32_t>(past));
  }

  [[nodiscard]] double bytes() const { return static_cast<double>(cache_.size()); }

  void run(ThreadTeam& team, Allocation& scratch, std::size_t each) {
    team.run([&](int index) {
      const Worker worker{.index = index,
                          .count = team.size(),
                          .scratch = {scratch.data() + each * static_cast<std::size_t>(index), each}};
      for (std::int64_t layer = 0; layer < layers_; ++layer) {
        kernels_.layout_attention({.query = query_.data(),
                                   .y = y_.data(),
                                   .kv = {.cache = cache_.data(),
                                          .type = type_,
                                          .block_tables = tables_.data() + layer * blocks_,
                                          .blocks_per_sequence = blocks_,
                                          .sequences = &span_,
                                          .sequence_count = 1,
                                          .positions = positions_.data(),
                                          .kv_heads = problem_.kv_heads,
                                          .head_dim = problem_.head_dim},
                                   .scale = 1.0F / std::sqrt(static_cast<float>(problem_.head_dim)),
                                   .causal = true,
                                   .window = 0,
                                   .tokens = tokens_,
                                   .heads = problem_.heads},
                                  worker);
        team.barrier();
      }
    });
  }

 private:
  const Problem& problem_;
  const KernelTable& kernels_;
  DataType type_;  // of K and V
  std::int64_t tokens_, layers_, blocks_;
  std::size_t block_bytes_;
  Allocation cache_, query_, y_;
  std::vector<std::int32_t> tables_, positions_;
  SequenceSpan span_;
};

struct Seconds {
  double best, median;
};

Seconds time_rounds(ThreadTeam& team, const Problem& problem, Step& step) {
  const std::size_t each = scratch_bytes({.max_inputs = 0, .max_head_dim = problem.head_dim, .max_outputs = 0});
  Allocation scratch(each * static_cast<std::size_t>(team.size()), "scratch");
  std::vector<double> seconds;
  const double begin = now();
  while (seconds.size() < 3 || (now() - begin < 1.0 && seconds.size() < 50)) {
    const double start = now();
    step.run(team, scratch, each);
    seconds.push_back(now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

/// As bench_linear: the shares of the roofs, which are best passes too, are those of the best round.
void bench_decode(ThreadTeam& team, const Problem& problem, KernelSet set, const Case& one, std::int64_t length) {
  const std::int64_t row_bytes = 2 * problem.kv_heads * kv_plane_bytes(one.kv, problem.head_dim) / kv_block_tokens;
  const std::int64_t layers = std::max<std::int64_t>(1, (std::int64_t{512} << 20) / (row_bytes * length));
  Step step(problem, set, one, length - 1, 1, layers);
  const double before = measure_read_bandwidth(problem.threads);
  const auto [seconds, median] = time_rounds(team, problem, step);
  const double read = std::max(before, measure_read_bandwidth(problem.threads));
  std::printf("  decode %5lld  %8.2f us a layer (median %8.2f)  %6.1f GB/s (%.2f of %.1f)\n",
              static_cast<long long>(length), seconds * 1e6 / static_cast<double>(layers),
              median * 1e6 / static_cast<double>(layers), step.bytes() / seconds / 1e9, step.bytes() / seconds / read,
              read / 1e9);
}

void bench_prompt(ThreadTeam& team, const Problem& problem, KernelSet set, const Case& one, std::int64_t length,
                  double peak) {
  Step step(problem, set, one, 0, length, 1);
  const auto [seconds, median] = time_rounds(team, problem, step);
  const double flops = 4.0 * static_cast<double>(problem.heads * problem.head_dim) * static_cast<double>(length) *
                       static_cast<double>(length + 1) / 2.0 / seconds;
  std::printf("  prompt %5lld  %8.3f ms a layer (median %8.3f)  %7.1f GFLOP/s (%.2f of peak)\n",
              static_cast<long long>(length), seconds * 1e3, median * 1e3, flops / 1e9, flops / peak);
}

}  // namespace

int main(int argc, char** argv) {
  const lamella::bench::Arguments arguments{argc, argv};
  try {
    Problem problem;
    problem = {.heads = arguments.number(1, problem.heads),
               .kv_heads = arguments.number(2, problem.kv_heads),
               .head_dim = arguments.number(3, problem.head_dim),
               .threads = static_cast<int>(arguments.number(4, 0))};
    if (problem.threads == 0) problem.threads = usable_cores();
    const std::string only = arguments.text(7);
    const KernelSet set = arguments.kernel_set(5);
    ThreadTeam team(problem.threads);
    for (const Case& one : all_cases) {
      if (!arguments.wants(6, one.name)) continue;
      const double peak = measure_peak(set, one.arithmetic, problem.threads);
      std::printf("%s %s: %lld heads on %lld of %lld, %d threads, %s peak %.0f GFLOP/s\n", to_string(set), one.name,
                  static_cast<long long>(problem.heads), static_cast<long long>(problem.kv_heads),
                  static_cast<long long>(problem.head_dim), problem.threads, to_string(one.arithmetic), peak / 1e9);
      if (only != "prompt")
        for (const std::int64_t length : arguments.numbers(8, {128, 1024, 4096}))
          bench_decode(team, problem, set, one, length);
      if (only != "decode")
        for (const std::int64_t length : arguments.numbers(8, {128, 512, 2048}))
          bench_prompt(team, problem, set, one, length, peak);
      std::fflush(stdout);
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
