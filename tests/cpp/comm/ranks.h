// Ranks as threads, for tests.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "lamella/error.h"

namespace lamella::comm::testing {

using Ends = std::vector<std::unique_ptr<Communicator>>;

/// Calls body(member) on a thread for each of `count` members. Returns what each threw, null where it threw nothing.
inline std::vector<std::exception_ptr> run_ranks(int count, const std::function<void(int)>& body) {
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(count));
  std::vector<std::thread> threads;
  for (int member = 0; member < count; ++member)
    threads.emplace_back([&, member] {
      try {
        body(member);
      } catch (...) {
        thrown[static_cast<std::size_t>(member)] = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

/// The same for bodies that must not throw: rethrows the first.
inline void run_sound_ranks(int count, const std::function<void(int)>& body) {
  for (const std::exception_ptr& thrown : run_ranks(count, body))
    if (thrown) std::rethrow_exception(thrown);
}

/// The message of a rank_failed error; any other is rethrown, and none is "".
inline std::string failure_text(const std::exception_ptr& thrown) {
  if (!thrown) return "";
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::rank_failed) throw;
    return error.what();
  }
}

}  // namespace lamella::comm::testing
