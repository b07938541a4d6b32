// Ranks that are processes under mpirun or srun, over MPI. In the library lamella_mpi, which -DLAMELLA_MPI=ON builds.
#pragma once

#include <chrono>
#include <memory>

#include "comm/communicator.h"

namespace lamella::comm {

class MpiState;

struct MpiOptions {
  /// A rank that is waited for longer counts as failed.
  std::chrono::milliseconds deadline = std::chrono::seconds(60);
  /// All ranks must have come within this time.
  std::chrono::milliseconds init_timeout = std::chrono::seconds(60);
};

/// This process as a rank of the job that mpirun or srun started. Communicators may outlive it; who goes last meets the
/// last of the other ranks, and ends MPI if it began here.
///
/// After a failure nothing of MPI is called any more: its end would wait for the failed rank for ever. A process then
/// ends without it and with an exit code other than 0, upon which mpirun and srun end the job. An owner who gives up
/// for a reason of its own says so with fail() first, or the others wait for the deadline.
class MpiWorld {
 public:
  /// Begins MPI unless the process has; returns when all ranks have come. Errors: rank_failed naming all who stayed
  /// away; invalid_argument where MPI has no MPI_THREAD_MULTIPLE, has ended in this process (it cannot begin again), or
  /// knows another number of ranks than the launcher, since mpirun belongs to another MPI.
  explicit MpiWorld(const MpiOptions& options = {});

  [[nodiscard]] int rank() const noexcept;
  [[nodiscard]] int size() const noexcept;
  /// This rank's end of a new group; null where it is no member. Called on all ranks of the job for all groups alike,
  /// in the same order, by one thread; it does not wait for the others. Groups may then be used side by side by several
  /// threads.
  [[nodiscard]] std::unique_ptr<Communicator> group(GroupMembers members);
  /// The group of all.
  [[nodiscard]] std::unique_ptr<Communicator> all();

 private:
  std::shared_ptr<MpiState> state_;
};

}  // namespace lamella::comm
