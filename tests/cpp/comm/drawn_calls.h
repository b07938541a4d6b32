// Drawn collectives with what plain loops make of them: for communicators of every kind.
#pragma once

#include <cstddef>
#include <random>
#include <span>
#include <vector>

#include "comm/communicator.h"

namespace lamella::comm::testing {

using Random = std::mt19937_64;
using Buffer = std::vector<std::byte>;

/// What one call needs and must give, drawn before the ranks begin: data of all, and the same dice for each.
struct Problem {
  int size;
  DataType type;
  Reduction reduction;
  std::size_t count;  // elements of each rank
  int root;
  std::vector<Buffer> data;  // of each rank
  std::vector<std::vector<std::size_t>> counts;  // all_to_all: [from][to]
  std::vector<Buffer> sent;
};

/// Calls that all ranks of a group of `size` make, one after the other, drawn before they begin.
struct Calls {
  std::vector<Problem> problems;
  std::vector<int> kinds;

  Calls(Random& random, int size, int count);
};

/// Runs those of `calls` from `begin` to `end` with nothing between them. Failures are GoogleTest's.
void run_calls(Communicator& ends, const Calls& calls, std::size_t begin, std::size_t end);
inline void run_calls(Communicator& ends, const Calls& calls) { run_calls(ends, calls, 0, calls.kinds.size()); }

}  // namespace lamella::comm::testing
