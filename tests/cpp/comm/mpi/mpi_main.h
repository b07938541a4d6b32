// Test programs of which every rank of a job runs a copy.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "comm/communicator.h"
#include "comm/launch.h"
#include "seed.h"

namespace lamella::comm::testing {

/// The same number on all ranks: the first's.
inline std::uint64_t common_seed(Communicator& world) {
  std::uint64_t seed = lamella::testing::fresh_seed();
  world.broadcast(std::as_writable_bytes(std::span(&seed, 1)), 0);
  return seed;
}

/// One rank tells how tests go; the others speak where one fails. Before InitGoogleTest.
inline void speak_for_all() {
  if (launch_of_process().rank != 0) GTEST_FLAG_SET(brief, true);
}

}  // namespace lamella::comm::testing
