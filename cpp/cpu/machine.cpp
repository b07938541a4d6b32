#include "cpu/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>
#include <vector>

#include "base/affinity.h"
#include "base/check.h"
#include "base/thread_team.h"
#include "cpu/cgroup.h"
#include "cpu/kernels/vector/kernel_sets.h"
#include "memory/allocation.h"

namespace lamella::cpu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// A figure of /proc/meminfo in bytes.
std::uint64_t memory_figure(const std::string& key) {
  std::ifstream in("/proc/meminfo");
  for (std::string name; in >> name;) {
    std::uint64_t kib = 0;
    in >> kib;
    if (name == key) return kib * 1024;
    in.ignore(1024, '\n');
  }
  return 0;
}

/// Passes number 0, 1 and so on of `pass(thread, number)` by all threads together, for about `seconds` and at least
/// `least` of them; the time of the shortest, barrier to barrier.
template <typename Pass>
double best_pass_seconds(int threads, double seconds, std::size_t least, const Pass& pass) {
  ThreadTeam team(threads);
  std::atomic<bool> again{true};
  double best = INFINITY;
  const Clock::time_point begin = Clock::now();
  team.run([&](int thread) {
    for (std::size_t number = 0; again.load(std::memory_order_relaxed); ++number) {
      team.barrier();
      const Clock::time_point start = Clock::now();
      pass(thread, number);
      team.barrier();
      if (thread == 0) {
        best = std::min(best, seconds_since(start));
        if (number + 1 >= least && seconds_since(begin) >= seconds) again.store(false, std::memory_order_relaxed);
      }
      team.barrier();  // everybody sees the same `again`
    }
  });
  return best;
}

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void check_threads(int threads) {
  if (threads < 1 || threads > most_threads)
    throw Error(ErrorCode::invalid_argument, concat("threads is ", threads, "; expected 1 to ", most_threads));
}

const Probes& probes(KernelSet set) {
  const VectorSet* vectors = vector_set(set);
  check(vectors != nullptr, "no probes for the kernel set ", to_string(set));
  return vectors->probes;
}

}  // namespace

int usable_cores() {
  double cores = affine_cores();
  if (const auto quota = read_cgroup_limits().cores) cores = std::min(cores, std::ceil(*quota));
  return std::max(1, static_cast<int>(cores));
}

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos && line.starts_with("model name")) return line.substr(colon + 2);
  }
#if defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "unknown";
#endif
}

std::uint64_t available_memory() {
  const std::uint64_t free = memory_figure("MemAvailable:");
  const auto limit = read_cgroup_limits().memory_left;
  return limit ? std::min(free, *limit) : free;
}

std::size_t bandwidth_buffer(std::uint64_t available, std::optional<std::uint64_t> left_of_budget) {
  constexpr std::uint64_t most = std::uint64_t{1} << 30, least = std::uint64_t{64} << 20;
  const std::uint64_t bytes = std::min({most, available / 4, left_of_budget.value_or(most)});
  return bytes < least ? 0 : static_cast<std::size_t>(bytes);
}

double measure_read_bandwidth(int threads, std::size_t bytes, double seconds) {
  constexpr std::size_t page = 4096;
  check_threads(threads);
  const auto& loops = probes(available_kernel_sets().back()).read_loops;
  const std::size_t each = std::max<std::size_t>(bytes / static_cast<std::size_t>(threads) / page, 1) * page;
  const Allocation memory(each * static_cast<std::size_t>(threads) + most_read_ahead,
                          "measuring the read bandwidth");  // reads ahead stay inside
  ThreadTeam(threads).run([&](int thread) {
    std::byte* part = memory.data() + each * static_cast<std::size_t>(thread);
    std::fill_n(part, each, std::byte{1});
  });
  std::atomic<std::uint64_t> used{0};  // keeps the reads alive
  const double best = best_pass_seconds(threads, seconds, loops.size(), [&](int thread, std::size_t number) {
    used += loops[number % loops.size()](memory.data() + each * static_cast<std::size_t>(thread), each);
  });
  return static_cast<double>(each * static_cast<std::size_t>(threads)) / best;
}

double measure_peak(KernelSet set, Arithmetic arithmetic, int threads, double seconds) {
  constexpr std::int64_t rounds = 200'000;  // about a millisecond
  check_threads(threads);
  const Probes& all = probes(set == KernelSet::reference ? KernelSet::baseline : set);
  const PeakProbe& probe = arithmetic == Arithmetic::f32    ? all.f32
                           : arithmetic == Arithmetic::bf16 ? all.bf16
                                                            : all.int8;
  std::atomic<float> used{0.0F};
  const double best =
      best_pass_seconds(threads, seconds, 1, [&](int, std::size_t) { used = probe.run(rounds, 0.5F, 1.0F); });
  return static_cast<double>(rounds * probe.operations_a_round * threads) / best;
}

double measure_barrier(int threads) {
  constexpr int barriers = 1000, batches = 51;
  check_threads(threads);
  ThreadTeam team(threads);
  std::vector<double> seconds;
  seconds.reserve(batches);
  team.run([&](int thread) {
    for (int batch = 0; batch < batches; ++batch) {
      const Clock::time_point start = Clock::now();
      for (int i = 0; i < barriers; ++i) team.barrier();
      if (thread == 0) seconds.push_back(seconds_since(start) / barriers);
    }
  });
  return median(seconds);
}

std::optional<double> measure_core_latency() {
  constexpr int rounds = 200, batches = 51;
  if (usable_cores() < 2) return std::nullopt;
  ThreadTeam team(2);
  std::atomic<int> ball{0};
  std::vector<double> seconds;
  seconds.reserve(batches);
  team.run([&](int thread) {
    for (int batch = 0; batch < batches; ++batch) {
      const Clock::time_point start = Clock::now();
      for (int round = 0; round < rounds; ++round) {
        const int mine = 2 * (batch * rounds + round) + thread;
        while (ball.load(std::memory_order_acquire) != mine) {
          // nothing: a pause would count
        }
        ball.store(mine + 1, std::memory_order_release);
      }
      if (thread == 0) seconds.push_back(seconds_since(start) / (2.0 * rounds));
    }
  });
  return median(seconds);
}

}  // namespace lamella::cpu
