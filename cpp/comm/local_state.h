// What the groups of a LocalWorld share: whether a rank has failed, and whom to wake when one does.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace lamella::comm {

class LocalGroup;

class LocalState {
 public:
  LocalState(int ranks, std::chrono::milliseconds deadline) : ranks_(ranks), deadline_(deadline) {}

  [[nodiscard]] int ranks() const noexcept { return ranks_; }
  [[nodiscard]] std::chrono::milliseconds deadline() const noexcept { return deadline_; }
  /// Groups are woken as long as they live.
  void add(const std::shared_ptr<LocalGroup>& group);

  /// In one order with a group's count of readers (LocalGroup).
  [[nodiscard]] bool has_failed() const noexcept { return failed_.load(std::memory_order_seq_cst); }
  /// Keeps the first report and wakes everyone; without memory for the message, one without words of its own.
  void fail(int rank, std::string_view cause) noexcept;
  /// Throws rank_failed with the first report. Only where has_failed().
  [[noreturn]] void throw_failure();

 private:
  const int ranks_;
  const std::chrono::milliseconds deadline_;
  std::mutex mutex_;
  std::atomic<bool> failed_{false};
  std::string message_;
  std::vector<std::weak_ptr<LocalGroup>> groups_;
};

}  // namespace lamella::comm
