// What long native calls owe to Python meanwhile: a look at signals, and news of how far they are.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "gil.h"

namespace lamella {

/// Looks for signals as the interpreter does between two bytecodes, so that Ctrl-C ends a native call of many steps. At
/// most every few milliseconds: taking the GIL from a thread that computes in Python costs up to five. Only Python's
/// main thread handles signals; elsewhere this does nothing. Errors: what the signal's handler raises.
class SignalWatch {
 public:
  void operator()() {
    constexpr std::chrono::milliseconds pause(10);
    const Clock::time_point now = Clock::now();
    if (now - looked_ < pause) return;
    const GilTaken gil;
    if (PyErr_CheckSignals() != 0) throw nanobind::python_error();
    looked_ = Clock::now();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point looked_ = Clock::now();
};

/// Bytes done and in all, as Python wants to hear of them.
using ProgressFunction = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// A native call's progress without the GIL, told to a Python function about a hundred times. `told` must outlive it. Made on the thread that
/// Python called from: there it also looks for signals. Errors: whatever the function or a signal's handler raises.
class PythonProgress {
 public:
  explicit PythonProgress(const ProgressFunction& told) : told_(told) {}

  void operator()(std::uint64_t done, std::uint64_t total) {
    if (std::this_thread::get_id() == caller_) look_for_signals_();
    if (!told_ || (done - reported_ < total / 100 && done != total)) return;
    reported_ = done;
    const GilTaken gil;
    told_(done, total);
  }

 private:
  const ProgressFunction& told_;
  std::uint64_t reported_ = 0;
  SignalWatch look_for_signals_;
  std::thread::id caller_ = std::this_thread::get_id();
};

}  // namespace lamella
