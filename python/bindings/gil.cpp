#include "gil.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace lamella {
namespace {

// One set a process, as there is one interpreter in it.
std::atomic<bool> ended{false};
std::thread::id ended_by;           // written before `ended`
std::atomic<int> away{0};           // threads inside of a GilReleased
std::atomic<int> coming_back{0};    // threads that wait for the GIL and found `ended` false

void sleep_briefly() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

/// A thread is about to wait for the GIL. It is counted before it looks: the end waits for those that it counts, and
/// whom it does not count sees the end.
void come_back() noexcept {
  ++coming_back;
  if (!ended || std::this_thread::get_id() == ended_by) return;
  --coming_back;
  for (;;) ::pause();
}

/// Runs among Python's exit handlers, with the GIL: after those that were registered later, one of which closes the
/// engines, so that most of those who are away are on their way back. Others, inside a model's loading perhaps, stay.
void end() {
  constexpr std::chrono::seconds patience(1);
  PyThreadState* const state = PyEval_SaveThread();
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (away > 0 && std::chrono::steady_clock::now() < deadline) sleep_briefly();
  ended_by = std::this_thread::get_id();
  ended = true;
  while (coming_back > 0) sleep_briefly();
  PyEval_RestoreThread(state);
}

/// A forked child has none of its parent's other threads.
void forget_other_threads() noexcept { away = coming_back = 0; }

}  // namespace

GilReleased::GilReleased() : state_(PyEval_SaveThread()) { ++away; }

GilReleased::~GilReleased() {
  come_back();
  PyEval_RestoreThread(state_);
  --coming_back;
  --away;
}

GilTaken::GilTaken() {
  come_back();
  state_ = PyGILState_Ensure();
  --coming_back;
}

void watch_for_the_interpreters_end() {
  pthread_atfork(nullptr, nullptr, forget_other_threads);
  nanobind::module_::import_("atexit").attr("register")(nanobind::cpp_function(end));
}

}  // namespace lamella
