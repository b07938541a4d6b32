// What it costs to send tokens to their experts and back, with experts that give back what they are given: gate, table,
// inverse table, dispatch and combine, as a mixture's fused ops run them in float32.
//   bench_experts [experts [hidden [top_k [threads]]]]
// Default: 64 2048 1 1. Prints one line a number of tokens: tokens, best and median microseconds of the rounds, and beside
// them the roof, what copying the rows there and back takes. bench/routing.py sets it beside one-hot einsums in torch.
// LAMELLA_ISA names the instruction set.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "base/thread_team.h"
#include "cpu/kernels/contracts.h"
#include "lamella/error.h"
#include "memory/allocation.h"
#include "store/pack.h"

namespace {

using namespace lamella;

constexpr int rounds = 41;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Microseconds {
  double best, median;
};

template <typename Run>
Microseconds time_rounds(const Run& run) {
  std::vector<double> seconds(rounds);
  for (double& one : seconds) {
    const double start = now();
    run();
    one = now() - start;
  }
  std::ranges::sort(seconds);
  return {seconds.front() * 1e6, seconds[rounds / 2] * 1e6};
}

struct Mixture {
  std::int64_t experts, hidden, top_k;
  int threads;
};

/// Runs the calls of an op as an executor does.
class Team {
 public:
  Team(const cpu::ScratchBounds& bounds, int threads)
      : team_(threads),
        each_((cpu::scratch_bytes(bounds) + 4095) / 4096 * 4096),
        shared_size_(cpu::shared_bytes(bounds)),
        memory_(each_ * static_cast<std::size_t>(threads) + shared_size_, "bench") {}

  /// One step: both ops, a barrier behind each phase.
  void run(const cpu::KernelTable& kernels, const cpu::NormRouteArgs& there, const cpu::CombineArgs& back) {
    team_.run([&](int index) {
      cpu::Worker worker{.index = index,
                         .count = team_.size(),
                         .scratch = {memory_.data() + each_ * static_cast<std::size_t>(index), each_},
                         .shared = {memory_.data() + each_ * static_cast<std::size_t>(team_.size()), shared_size_}};
      for (worker.phase = 0; worker.phase < phases(there); ++worker.phase) {
        kernels.norm_route(there, worker);
        team_.barrier();
      }
      worker.phase = 0;
      kernels.combine(back, worker);
    });
  }

 private:
  ThreadTeam team_;
  std::size_t each_, shared_size_;
  Allocation memory_;
};

void report(const Mixture& mixture, std::int64_t tokens, const cpu::KernelTable& kernels) {
  const auto [experts, hidden, top_k, threads] = mixture;
  std::mt19937 random(static_cast<unsigned>(tokens));
  std::normal_distribution<float> normal;
  const auto numbers = [&](std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
  };
  const std::vector<float> x = numbers(tokens * hidden), router = numbers(experts * hidden);
  const PanelLayout layout(formats::f32, experts, hidden);
  Allocation packed(static_cast<std::size_t>(layout.total_bytes()), "router");
  pack_floats({.bytes = {packed.data(), packed.size()}, .outputs = experts, .inputs = hidden, .format = formats::f32}, 0,
              router);
  const auto rows_count = static_cast<std::size_t>(tokens * top_k);
  std::vector<float> rows(rows_count * static_cast<std::size_t>(hidden)), weights(rows_count), y(x.size());
  std::vector<std::int32_t> offsets(static_cast<std::size_t>(experts) + 1), places(rows_count);
  cpu::NormRouteArgs there{
      .x = x.data(),
      .norm = NormKind::none,
      .norm_weight = nullptr,
      .norm_bias = nullptr,
      .eps = 0.0F,
      .router = {.data = packed.data(), .outputs = experts, .inputs = hidden, .format = formats::f32},
      .shared_router = {},
      .shared_gate = nullptr,
      .routing = {.kind = RouterKind::softmax_top_k,
                  .experts = experts,
                  .top_k = top_k,
                  .scale = 1.0F,
                  .bias = nullptr},
      .to = {.rows = rows.data(), .offsets = offsets.data(), .places = places.data()},
      .weights = weights.data(),
      .tokens = tokens};
  there.shared_inputs = share_inputs(there);
  const cpu::CombineArgs back{.rows = rows.data(),
                              .places = places.data(),
                              .weights = weights.data(),
                              .shared = nullptr,
                              .shared_gate = nullptr,
                              .residual = nullptr,
                              .y = y.data(),
                              .y_f32 = true,
                              .tokens = tokens,
                              .width = hidden,
                              .top_k = top_k};
  Team team({.max_inputs = hidden,
             .max_outputs = experts,
             .max_tokens = tokens,
             .max_experts = experts,
             .max_top_k = top_k,
             .workers = threads},
            threads);
  const Microseconds ours = time_rounds([&] { team.run(kernels, there, back); });
  const Microseconds roof = time_rounds([&] {
    for (std::size_t i = 0; i < rows_count; ++i)
      std::memcpy(rows.data() + i * static_cast<std::size_t>(hidden),
                  x.data() + i / static_cast<std::size_t>(top_k) * static_cast<std::size_t>(hidden),
                  static_cast<std::size_t>(hidden) * sizeof(float));
    std::memcpy(y.data(), rows.data(), y.size() * sizeof(float));
  });
  std::printf("%6lld tokens: best %9.1f us, median %9.1f us; copying %9.1f us\n", static_cast<long long>(tokens),
              ours.best, ours.median, roof.median);
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int index, long long otherwise) {
    return argc > index ? std::strtoll(argv[index], nullptr, 10) : otherwise;
  };
  const Mixture mixture{argument(1, 64), argument(2, 2048), argument(3, 1), static_cast<int>(argument(4, 1))};
  if (mixture.experts < 1 || mixture.experts > 1024 || mixture.hidden < 1 || mixture.top_k < 1 ||
      mixture.top_k > mixture.experts || mixture.threads < 1) {
    std::fprintf(stderr, "usage: bench_experts [experts to 1024 [hidden [top_k [threads]]]]\n");
    return 2;
  }
  try {
    const cpu::KernelSet set = cpu::default_kernel_set();
    if (set == cpu::KernelSet::reference) {
      std::fprintf(stderr, "error: the reference kernels have no fused ops\n");
      return 1;
    }
    std::printf("%s, %lld experts, hidden %lld, top_k %lld, %d threads\n", cpu::to_string(set),
                static_cast<long long>(mixture.experts), static_cast<long long>(mixture.hidden),
                static_cast<long long>(mixture.top_k), mixture.threads);
    for (const std::int64_t tokens : {1, 8, 64, 512, 2048})
      report(mixture, tokens, cpu::kernel_table(set, DataType::f32));
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
