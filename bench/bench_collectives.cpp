// Collectives of ranks that are threads of this process, beside a bare barrier of the same ranks.
//   bench_collectives [ranks [rounds]]
// Default: as many ranks as cores, 15 rounds. A round calls a barrier and every collective of every size, some thousand times
// each; printed are the medians of the rounds with the least and the most, in microseconds a call, and how many barriers a
// call takes: the median of the rounds' own ratios. Ranks are not bound to cores.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "bench_arguments.h"
#include "comm/local_world.h"
#include "cpu/machine.h"

namespace {

using namespace lamella;
using namespace lamella::comm;

using Clock = std::chrono::steady_clock;

struct Case {
  std::string name;
  int calls;  // of a round
  std::function<void(Communicator&, std::vector<float>& mine, std::vector<float>& all)> call;
};

std::vector<Case> cases(int ranks) {
  std::vector<Case> list = {{"barrier", 5000, [](Communicator& c, auto&, auto&) { c.barrier(); }}};
  const auto size = [](std::size_t bytes) {
    return bytes < 1024 ? std::to_string(bytes) + " B" : std::to_string(bytes / 1024) + " KiB";
  };
  for (const std::size_t bytes : {64, 1024, 8192, 32768, 262144, 4194304}) {
    const int calls = static_cast<int>(std::clamp<std::size_t>((std::size_t{1} << 26U) / bytes, 4, 3000));
    const std::size_t count = bytes / sizeof(float);
    list.push_back({"all_reduce " + size(bytes), calls, [count](Communicator& c, std::vector<float>& mine, auto&) {
                      c.all_reduce({mine.data(), count}, Reduction::sum);
                    }});
    list.push_back(
        {"all_gather " + size(bytes), calls, [=](Communicator& c, std::vector<float>& mine, std::vector<float>& all) {
           const std::vector<std::size_t> widths(static_cast<std::size_t>(ranks), bytes);
           c.all_gather(std::as_bytes(std::span(mine).first(count)),
                        std::as_writable_bytes(std::span(all).first(count * widths.size())), widths);
         }});
  }
  return list;
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) try {
  const bench::Arguments arguments{argc, argv};
  const auto ranks = static_cast<int>(arguments.number(1, cpu::usable_cores()));
  const std::int64_t rounds = arguments.number(2, 15);
  if (ranks < 1 || ranks > 1024 || rounds < 1)
    throw Error(ErrorCode::invalid_argument, "at least one round, and 1 to 1024 ranks");
  const std::vector<Case> list = cases(ranks);
  std::vector<std::vector<double>> microseconds(list.size());
  LocalWorld world(ranks);
  auto ends = world.all();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      Communicator& own = *ends[static_cast<std::size_t>(rank)];
      std::vector<float> mine(std::size_t{1} << 20U, 0.0F), all(mine.size() * static_cast<std::size_t>(ranks));
      for (std::int64_t round = 0; round < rounds; ++round)
        for (std::size_t i = 0; i < list.size(); ++i) {
          own.barrier();
          const auto begin = Clock::now();
          for (int call = 0; call < list[i].calls; ++call) list[i].call(own, mine, all);
          const std::chrono::duration<double, std::micro> took = Clock::now() - begin;
          if (rank == 0) microseconds[i].push_back(took.count() / list[i].calls);
        }
    });
  for (std::thread& thread : threads) thread.join();

  std::printf("%d ranks, %lld rounds\n%-20s %8s %8s %8s  %s\n", ranks, static_cast<long long>(rounds), "", "median",
              "least", "most", "barriers");
  for (std::size_t i = 0; i < list.size(); ++i) {
    std::vector<double> ratios;
    for (std::size_t round = 0; round < microseconds[i].size(); ++round)
      ratios.push_back(microseconds[i][round] / microseconds[0][round]);
    const auto [least, most] = std::ranges::minmax(microseconds[i]);
    std::printf("%-20s %8.2f %8.2f %8.2f  %.2f\n", list[i].name.c_str(), median(microseconds[i]), least, most,
                median(ratios));
  }
} catch (const lamella::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
