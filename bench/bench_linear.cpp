// The linear kernel on weights that no cache holds, from one token (bound by memory) to many (bound by arithmetic).
//   bench_linear [inputs outputs matrices threads [set [tokens...]]]        default: 2048 8192 16, all cores, the best
//   set
// Prints GB/s of weights against the read bandwidth measured before and after, and GFLOP/s against the register peak.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/thread_team.h"
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

struct Seconds {
  double best, median;
};

/// Seconds for all matrices with `tokens` tokens. The shares of the roofs, which are best passes too, are those of the
/// best round; a median far above it tells of other work on the machine.
Seconds time_rounds(ThreadTeam& team, const KernelTable& kernels, const Problem& problem, const Allocation& weights,
                    const Allocation& x, const Allocation& y, std::int64_t tokens) {
  const std::size_t matrix_bytes = static_cast<std::size_t>(problem.inputs * problem.outputs) * size_of(kernels.dtype);
  std::vector<double> seconds;
  const double begin = now();
  while (seconds.size() < 3 || (now() - begin < 2.0 && seconds.size() < 30)) {
    const double start = now();
    team.run([&](int index) {
      for (std::int64_t m = 0; m < problem.matrices; ++m) {
        kernels.linear({.x = x.data(),
                        .weight = weights.data() + matrix_bytes * static_cast<std::size_t>(m),
                        .y = y.data(),
                        .y_f32 = false,
                        .tokens = tokens,
                        .inputs = problem.inputs,
                        .outputs = problem.outputs},
                       Worker{.index = index, .count = team.size(), .scratch = {}});
        team.barrier();
      }
    });
    seconds.push_back(now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

void bench(const Problem& problem, KernelSet set, DataType dtype, const std::vector<std::int64_t>& token_counts) {
  const KernelTable& kernels = kernel_table(set, dtype);
  const auto weight_count = static_cast<std::size_t>(problem.inputs * problem.outputs * problem.matrices);
  const auto most = static_cast<std::size_t>(*std::max_element(token_counts.begin(), token_counts.end()));
  const Allocation weights(weight_count * size_of(dtype), "weights"),
      x(most * static_cast<std::size_t>(problem.inputs) * 4, "x"),
      y(most * static_cast<std::size_t>(problem.outputs) * 4, "y");
  // 1.0 in fp32, and a pair of small bf16: values do not matter, denormals and untouched pages would.
  std::fill_n(reinterpret_cast<std::uint32_t*>(weights.data()), weights.size() / 4, 0x3f803f80u);
  std::fill_n(reinterpret_cast<std::uint32_t*>(x.data()), x.size() / 4, 0x3f803f80u);
  ThreadTeam team(problem.threads);
  const double peak = measure_peak_flops(set, problem.threads);
  std::printf("%s %s, %lld x %lld x %lld matrices (%.0f MB), %d threads, peak %.0f GFLOP/s\n", kernels.name,
              std::string(to_string(dtype)).c_str(), static_cast<long long>(problem.outputs),
              static_cast<long long>(problem.inputs), static_cast<long long>(problem.matrices),
              static_cast<double>(weights.size()) / 1e6, problem.threads, peak / 1e9);
  for (const std::int64_t tokens : token_counts) {
    const double before = measure_read_bandwidth(problem.threads);
    const auto [seconds, median] = time_rounds(team, kernels, problem, weights, x, y, tokens);
    const double read = std::max(before, measure_read_bandwidth(problem.threads));
    const double bytes = static_cast<double>(weights.size()) / seconds;
    const double flops = 2.0 * static_cast<double>(weight_count) * static_cast<double>(tokens) / seconds;
    std::printf("  %4lld tokens  %8.2f ms (median %8.2f)  %6.1f GB/s (%.2f of %.1f)  %7.1f GFLOP/s (%.2f of peak)\n",
                static_cast<long long>(tokens), seconds * 1e3, median * 1e3, bytes / 1e9, bytes / read, read / 1e9,
                flops / 1e9, flops / peak);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Problem problem;
  if (argc > 4) {
    problem = {.inputs = std::atoll(argv[1]),
               .outputs = std::atoll(argv[2]),
               .matrices = std::atoll(argv[3]),
               .threads = std::atoi(argv[4])};
    if (problem.threads == 0) problem.threads = usable_cores();
  }
  KernelSet set = available_kernel_sets().back();
  for (const KernelSet each : available_kernel_sets())
    if (argc > 5 && std::strcmp(argv[5], to_string(each)) == 0) set = each;
  std::vector<std::int64_t> tokens;
  for (int i = 6; i < argc; ++i) tokens.push_back(std::atoll(argv[i]));
  if (tokens.empty()) tokens = {1, 2, 4, 8, 16, 32, 128, 512};
  for (const DataType dtype : {DataType::bf16, DataType::f32}) {
    try {
      bench(problem, set, dtype, tokens);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      return 1;
    }
  }
  return 0;
}
