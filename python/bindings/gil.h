// The GIL around native calls, also while the interpreter ends.
#pragma once

#include <nanobind/nanobind.h>

namespace lamella {

/// Other Python threads run while this lives. A daemon thread that would come back after the interpreter's end stays in
/// the destructor instead, for as long as the process lives: Python up to 3.13 ends such a thread by unwinding its
/// stack, and C++ frames that must not throw make of that the end of the process, with SIGABRT.
class GilReleased {
 public:
  GilReleased();
  ~GilReleased();
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* state_;
};

/// The GIL for a while, inside of a GilReleased or on a thread that Python does not know. At the interpreter's end as
/// GilReleased.
class GilTaken {
 public:
  GilTaken();
  ~GilTaken() { PyGILState_Release(state_); }
  GilTaken(const GilTaken&) = delete;
  GilTaken& operator=(const GilTaken&) = delete;

 private:
  PyGILState_STATE state_;
};

/// Has the interpreter tell of its end, which the classes above need to know. To be called once, with the GIL.
void watch_for_the_interpreters_end();

}  // namespace lamella
