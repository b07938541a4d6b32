// The linear kernel on weights that no cache holds, from one token (bound by memory) to many (bound by arithmetic).
//   bench_linear [inputs outputs matrices threads [set [formats [tokens...]]]]
// Default: 2048 8192 16, all cores, the best set, all formats (a list as "bf16,int4"). Prints GB/s of packed weights against
// the read bandwidth measured before and after, and GFLOP/s against the register peak of the arithmetic that suits the format.
// Threads take from each other's shares of a matrix, as in a step. In every other round they do not: "alone" is the median of those.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
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
  std::int64_t inputs = 2048, outputs = 8192, matrices = 16;
  int threads = usable_cores();
};

/// A format with the activations that it is meant for.
struct Case {
  const char* name;
  WeightFormat format;
  DataType dtype;
  Arithmetic arithmetic;
};
constexpr Case all_cases[] = {
    {"f32", formats::f32, DataType::f32, Arithmetic::f32},
    {"f16", formats::f16, DataType::f16, Arithmetic::f32},
    {"bf16", formats::bf16, DataType::bf16, Arithmetic::bf16},
    {"int8_weight_only", formats::int8_weight_only, DataType::bf16, Arithmetic::bf16},
    {"int8", formats::int8, DataType::bf16, Arithmetic::int8},
    {"q8_0", formats::q8_0, DataType::bf16, Arithmetic::bf16},
    {"int4", formats::int4, DataType::bf16, Arithmetic::bf16},
    {"int4_a8", formats::int4_a8, DataType::bf16, Arithmetic::int8},
    {"q4_1", formats::q4_1, DataType::bf16, Arithmetic::bf16},
};

struct Seconds {
  double best, median, alone;
};

/// Seconds for all matrices with `tokens` tokens. The shares of the roofs, which are best passes too, are those of the
/// best round; a median far above it tells of other work on the machine.
Seconds time_rounds(ThreadTeam& team, const KernelTable& kernels, const Problem& problem, const WeightFormat& format,
                    const Allocation& weights, const Allocation& x, const Allocation& y, std::int64_t tokens) {
  const auto matrix_bytes =
      static_cast<std::size_t>(PanelLayout(format, problem.outputs, problem.inputs).total_bytes());
  const ScratchBounds bounds{.max_inputs = problem.inputs, .max_tokens = tokens};
  const std::size_t each = scratch_bytes(bounds);
  const Allocation scratch(each * static_cast<std::size_t>(team.size()), "scratch"),
      shared(shared_bytes(bounds), "shared scratch");
  std::vector<WorkShare> shares(static_cast<std::size_t>(team.size()));
  std::vector<double> seconds, alone;
  const double begin = now();
  while (alone.size() < 3 || (now() - begin < 2.0 && alone.size() < 30)) {
    const bool taking = seconds.size() == alone.size();
    const double start = now();
    std::fill(shares.begin(), shares.end(), WorkShare{});
    team.run([&](int index) {
      std::uint32_t round = 0;
      for (std::int64_t m = 0; m < problem.matrices; ++m) {
        LinearArgs args{.x = x.data(),
                        .weight = {weights.data() + matrix_bytes * static_cast<std::size_t>(m), problem.outputs,
                                   problem.inputs, format},
                        .y = y.data(),
                        .y_f32 = false,
                        .tokens = tokens};
        args.shared_inputs = share_inputs(args);
        for (int phase = 0; phase < phases(args); ++phase) {
          kernels.linear(args, Worker{.index = index,
                                      .count = team.size(),
                                      .scratch = {scratch.data() + each * static_cast<std::size_t>(index), each},
                                      .shared = {shared.data(), shared.size()},
                                      .phase = phase,
                                      .shares = taking ? shares.data() : nullptr,
                                      .round = ++round});
          team.barrier();
        }
      }
    });
    (taking ? seconds : alone).push_back(now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  std::sort(alone.begin(), alone.end());
  return {seconds.front(), seconds[seconds.size() / 2], alone[alone.size() / 2]};
}

void run_case(const Problem& problem, KernelSet set, const Case& one, const std::vector<std::int64_t>& token_counts) {
  const KernelTable& kernels = kernel_table(set, one.dtype);
  const auto weight_count = static_cast<std::size_t>(problem.inputs * problem.outputs * problem.matrices);
  const auto most = static_cast<std::size_t>(*std::max_element(token_counts.begin(), token_counts.end()));
  const PanelLayout layout(one.format, problem.outputs, problem.inputs);
  const Allocation weights(static_cast<std::size_t>(layout.total_bytes() * problem.matrices), "weights"),
      x(most * static_cast<std::size_t>(problem.inputs) * 4, "x"),
      y(most * static_cast<std::size_t>(problem.outputs) * 4, "y");
  // Values do not matter, denormals and untouched pages would: 1.0 in fp32 and pairs of bf16 and fp16 near it; codes of 28,
  // 1 and 12 with scales of 0.004 in fp16.
  std::fill_n(reinterpret_cast<std::uint32_t*>(weights.data()), weights.size() / 4,
              is_quantised(one.format) ? 0x1c1c1c1cu : 0x3f803f80u);
  std::fill_n(reinterpret_cast<std::uint32_t*>(x.data()), x.size() / 4, 0x3f803f80u);
  ThreadTeam team(problem.threads);
  const double peak = measure_peak(set, one.arithmetic, problem.threads);
  std::printf(
      "%s %s, activations %s, %lld x %lld x %lld matrices (%.0f MB), %d threads, %s peak %.0f GFLOP/s, cores %.0f ns "
      "apart\n",
      kernels.name, one.name, std::string(to_string(one.dtype)).c_str(), static_cast<long long>(problem.outputs),
      static_cast<long long>(problem.inputs), static_cast<long long>(problem.matrices),
      static_cast<double>(weights.size()) / 1e6, problem.threads, to_string(one.arithmetic), peak / 1e9,
      measure_core_latency().value_or(0.0) * 1e9);
  for (const std::int64_t tokens : token_counts) {
    const double before = measure_read_bandwidth(problem.threads);
    const auto [seconds, median, alone] = time_rounds(team, kernels, problem, one.format, weights, x, y, tokens);
    const double read = std::max(before, measure_read_bandwidth(problem.threads));
    const double bytes = static_cast<double>(weights.size()) / seconds;
    const double flops = 2.0 * static_cast<double>(weight_count) * static_cast<double>(tokens) / seconds;
    std::printf(
        "  %4lld tokens  %8.2f ms (median %8.2f, alone %8.2f)  %6.1f GB/s (%.2f of %.1f)  %7.1f GFLOP/s (%.2f of peak)\n",
        static_cast<long long>(tokens), seconds * 1e3, median * 1e3, alone * 1e3, bytes / 1e9, bytes / read,
        read / 1e9, flops / 1e9, flops / peak);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const lamella::bench::Arguments arguments{argc, argv};
  try {
    Problem problem;
    problem = {.inputs = arguments.number(1, problem.inputs),
               .outputs = arguments.number(2, problem.outputs),
               .matrices = arguments.number(3, problem.matrices),
               .threads = static_cast<int>(arguments.number(4, 0))};
    if (problem.threads == 0) problem.threads = usable_cores();
    for (const Case& one : all_cases)
      if (arguments.wants(6, one.name))
        run_case(problem, arguments.kernel_set(5), one, arguments.numbers(7, {1, 2, 4, 8, 16, 32, 128, 512}));
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
