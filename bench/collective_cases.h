// The collectives that the benches of communicators time, and how: for ranks that are threads and for ranks that are
// processes.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace lamella::bench {

using comm::Communicator;
using comm::Reduction;

struct Case {
  std::string name;
  int calls;  // of a round
  std::function<void(Communicator&, std::vector<float>& mine, std::vector<float>& all)> call;
};

inline std::vector<Case> cases(int ranks) {
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

/// Calls everything as one rank of all and returns the microseconds of a call: [case][round].
inline std::vector<std::vector<double>> time_rounds(Communicator& own, std::span<const Case> list,
                                                    std::int64_t rounds) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::vector<double>> microseconds(list.size());
  std::vector<float> mine(std::size_t{1} << 20U, 0.0F), all(mine.size() * static_cast<std::size_t>(own.size()));
  for (std::int64_t round = 0; round < rounds; ++round)
    for (std::size_t i = 0; i < list.size(); ++i) {
      own.barrier();
      const auto begin = Clock::now();
      for (int call = 0; call < list[i].calls; ++call) list[i].call(own, mine, all);
      const std::chrono::duration<double, std::micro> took = Clock::now() - begin;
      microseconds[i].push_back(took.count() / list[i].calls);
    }
  return microseconds;
}

inline double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

inline void print_rounds(int ranks, std::span<const Case> list, const std::vector<std::vector<double>>& microseconds) {
  std::printf("%d ranks, %lld rounds\n%-20s %8s %8s %8s  %s\n", ranks, static_cast<long long>(microseconds[0].size()),
              "", "median", "least", "most", "barriers");
  for (std::size_t i = 0; i < list.size(); ++i) {
    std::vector<double> ratios;
    for (std::size_t round = 0; round < microseconds[i].size(); ++round)
      ratios.push_back(microseconds[i][round] / microseconds[0][round]);
    const auto [least, most] = std::ranges::minmax(microseconds[i]);
    std::printf("%-20s %8.2f %8.2f %8.2f  %.2f\n", list[i].name.c_str(), median(microseconds[i]), least, most,
                median(ratios));
  }
}

}  // namespace lamella::bench
