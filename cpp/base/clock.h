// Time for measuring how long something takes.
#pragma once

#include <chrono>

namespace lamella {

/// Seconds since some moment in the past; never runs backwards.
[[nodiscard]] inline double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace lamella
