// Waiting in turns: a condition variable's clock overflows where a caller says "for ever".
#pragma once

#include <algorithm>

#include "lamella/stream.h"

namespace lamella {

/// Calls `wait(turn)` with at most an hour at a time until it returns true or `timeout` is over; says which. The last
/// call's answer counts, so that a timeout of zero, or NaN, looks once.
template <typename Wait>
bool wait_in_turns(Seconds timeout, const Wait& wait) {
  constexpr Seconds hour(3600.0);
  for (Seconds left = timeout;;) {
    const Seconds turn = left > Seconds::zero() ? std::min(left, hour) : Seconds::zero();
    if (wait(turn)) return true;
    if (!(left > turn)) return false;
    left -= turn;
  }
}

}  // namespace lamella
