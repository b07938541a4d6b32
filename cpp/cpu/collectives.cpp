#include "cpu/collectives.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

namespace lamella::cpu {

void all_reduce(const AllReduceArgs& args, const Worker& worker) {
  if (worker.index != 0) return;
  const comm::Elements sum{args.y, static_cast<std::size_t>(args.tokens * args.width), args.type};
  std::memcpy(args.y, args.x, sum.bytes());
  args.ranks->all_reduce(sum, comm::Reduction::sum);
}

void all_gather(const AllGatherArgs& args, const Worker& worker) {
  if (worker.index != 0) return;
  const auto rows = static_cast<std::size_t>(args.tokens);
  const std::size_t own = args.widths[static_cast<std::size_t>(args.ranks->rank())],
                    all = std::accumulate(args.widths.begin(), args.widths.end(), std::size_t{0});
  args.ranks->all_gather({static_cast<const std::byte*>(args.x), rows * own},
                         {static_cast<std::byte*>(args.y), rows * all}, args.widths, rows);
}

void receive(const ReceiveArgs& args, const Worker& worker) {
  if (worker.index != 0) return;
  args.stages->receive({static_cast<std::byte*>(args.y), static_cast<std::size_t>(args.tokens * args.row_bytes)},
                       args.stages->rank() - 1);
}

void send(const SendArgs& args, const Worker& worker) {
  if (worker.index != 0) return;
  args.stages->send({static_cast<const std::byte*>(args.x), static_cast<std::size_t>(args.tokens * args.row_bytes)},
                    args.stages->rank() + 1);
}

void best_of_ranks(const BestOfRanksArgs& args, const Worker& worker) {
  const Range mine = share(args.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    const float* found = args.x + 2 * t * args.ranks;
    float best = found[0], token = found[1];
    for (std::int64_t rank = 0; rank < args.ranks; ++rank) {
      const float* other = found + 2 * rank;
      if (std::bit_cast<std::int32_t>(other[1]) < 0) {  // no numbers there, so there is no best
        best = NAN;
        token = other[1];
        break;
      }
      if (other[0] > best) best = other[0], token = other[1];
    }
    args.y[2 * t] = best;
    args.y[2 * t + 1] = token;
  }
}

}  // namespace lamella::cpu
