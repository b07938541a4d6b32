// Progress of a load that several threads share.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "store/load_weights.h"

namespace lamella {

/// Counts bytes and reports them, one thread at a time. Whoever is told may throw: that ends the load, and nobody is told
/// of what other threads still finish.
class LoadMeter {
 public:
  LoadMeter(std::uint64_t total, const LoadProgress& progress) : total_(total), progress_(progress) {}

  /// Errors: what the progress function throws.
  void add(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (ended_.load()) return;
    done_ += bytes;
    if (!progress_) return;
    try {
      progress_(done_, total_);
    } catch (...) {
      ended_.store(true);
      throw;
    }
  }
  /// Threads look at `ended` before each piece, and set it when theirs fails.
  void end() noexcept { ended_.store(true); }
  [[nodiscard]] bool ended() const noexcept { return ended_.load(); }

 private:
  std::uint64_t total_, done_ = 0;
  const LoadProgress& progress_;
  std::mutex mutex_;
  std::atomic<bool> ended_{false};
};

}  // namespace lamella
