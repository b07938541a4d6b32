// The system calls that write files, breaking where a test says so: programs that link breaking_calls.cpp have a pwrite,
// fsync, fallocate, ftruncate, rename and unlink of their own. Breaking never ends: use it in a forked child. Nothing is
// really synced in such a program, which would take long.
#pragma once

#include <cstdint>

namespace lamella::testing {

enum class Break : std::uint8_t {
  kill,  // the process ends, as by kill -9; of a write half is done
  lose_power,  // the same, and of everything not synced some is lost: sectors, sizes, names
  fail,  // the call fails with `error`; where it is an fsync, everything that it should have synced is lost
  shorten,  // a write writes half, as the operating system may
};

struct BreakingPoint {
  int call = 0;  // the number of the call that breaks, counted from 0 over all threads
  Break how = Break::kill;
  int error = 0;  // errno of Break::fail
  std::uint64_t seed = 0;  // what is lost
};

/// Counts calls from now on and breaks one of them.
void break_calls(const BreakingPoint& point);

/// Ends that, and the process; what a failed fsync lost is lost now. Says in `code` what the child has to tell.
[[noreturn]] void end_broken(int code);

/// Whether the call broke.
[[nodiscard]] bool has_broken();

}  // namespace lamella::testing
