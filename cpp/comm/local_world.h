// Ranks that are threads of this process.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace lamella::comm {

class LocalState;

/// The ranks of a job, one thread each, and what they have in common: one failure ends the waits of all of its groups.
/// Communicators may outlive it.
class LocalWorld {
 public:
  /// A rank that is waited for longer than `deadline` counts as failed.
  explicit LocalWorld(int ranks, std::chrono::milliseconds deadline = std::chrono::seconds(60));

  [[nodiscard]] int size() const noexcept;
  /// A communicator for each member of a new group, in order. Members are numbers in this world, each at most once. Called
  /// by one thread, before or beside the ranks.
  [[nodiscard]] std::vector<std::unique_ptr<Communicator>> group(GroupMembers members);
  /// The group of all.
  [[nodiscard]] std::vector<std::unique_ptr<Communicator>> all();

 private:
  std::shared_ptr<LocalState> state_;
};

}  // namespace lamella::comm
