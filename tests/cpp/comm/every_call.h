// One of each call, for tests of what becomes of it.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace lamella::comm::testing {

struct NamedCall {
  const char* name;  // in messages
  std::function<void(Communicator&, std::vector<float>&)> run;
};

/// One of each that waits for others; of rank 1 they wait where it is the one that stays away.
[[nodiscard]] std::vector<NamedCall> every_call();

}  // namespace lamella::comm::testing
