// Sends and receives on their way, with the ranks that they wait for.
#pragma once

#include <mpi.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"

namespace lamella::comm {

/// What MPI calls an error, in words.
[[nodiscard]] std::string mpi_error_text(int error);
/// For calls that no other rank can make fail. Errors: internal naming the call.
void check_mpi(int result, std::string_view call);

/// Nonblocking calls of one thread at a time. Their memory belongs to the caller, who keeps it until none is left.
class MpiRequests {
 public:
  struct Trouble {
    int rank;
    std::string text;
  };

  /// At most 2^31 - 1 bytes.
  void send(MPI_Comm communicator, Bytes data, int rank, int tag);
  void receive(MPI_Comm communicator, MutableBytes data, int rank, int tag);
  /// Looks at all once. Returns whether all are done; not while there is trouble().
  [[nodiscard]] bool test();

  [[nodiscard]] bool has_pending() const noexcept;
  /// In order of the calls since clear(): the rank, and, once it is done, the bytes that came.
  [[nodiscard]] std::size_t size() const noexcept { return requests_.size(); }
  [[nodiscard]] int rank(std::size_t i) const noexcept { return ranks_[i]; }
  [[nodiscard]] bool is_done(std::size_t i) const noexcept { return requests_[i] == MPI_REQUEST_NULL; }
  [[nodiscard]] std::size_t received(std::size_t i) const noexcept { return received_[i]; }
  /// Each rank once that a request is left for.
  [[nodiscard]] std::vector<int> waited_for() const;
  /// The first request that MPI gave up.
  [[nodiscard]] const std::optional<Trouble>& trouble() const noexcept { return trouble_; }
  void clear() noexcept;

 private:
  void add(MPI_Request request, int result, int rank);

  std::vector<MPI_Request> requests_;
  std::vector<int> ranks_, indices_;
  std::vector<std::size_t> received_;
  std::vector<MPI_Status> statuses_;
  std::optional<Trouble> trouble_;
};

}  // namespace lamella::comm
