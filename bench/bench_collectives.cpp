// Collectives of ranks that are threads of this process, beside a bare barrier of the same ranks.
//   bench_collectives [ranks [rounds]]
// Default: as many ranks as cores, 15 rounds. A round calls a barrier and every collective of every size, some thousand times
// each; printed are the medians of the rounds with the least and the most, in microseconds a call, and how many barriers a
// call takes: the median of the rounds' own ratios. Ranks are not bound to cores.
#include <cstdio>
#include <thread>
#include <vector>

#include "bench_arguments.h"
#include "collective_cases.h"
#include "comm/local_world.h"
#include "cpu/machine.h"

int main(int argc, char** argv) try {
  using namespace lamella;
  const bench::Arguments arguments{argc, argv};
  const auto ranks = static_cast<int>(arguments.number(1, cpu::usable_cores()));
  const std::int64_t rounds = arguments.number(2, 15);
  if (ranks < 1 || ranks > 1024 || rounds < 1)
    throw Error(ErrorCode::invalid_argument, "at least one round, and 1 to 1024 ranks");
  const std::vector<bench::Case> list = bench::cases(ranks);
  std::vector<std::vector<double>> microseconds;
  comm::LocalWorld world(ranks);
  auto ends = world.all();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      auto took = bench::time_rounds(*ends[static_cast<std::size_t>(rank)], list, rounds);
      if (rank == 0) microseconds = std::move(took);
    });
  for (std::thread& thread : threads) thread.join();
  bench::print_rounds(ranks, list, microseconds);
} catch (const lamella::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
