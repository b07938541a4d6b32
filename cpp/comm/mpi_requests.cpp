#include "comm/mpi_requests.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace lamella::comm {

std::string mpi_error_text(int error) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(error, text.data(), &length) != MPI_SUCCESS) return concat("MPI error ", error);
  return {text.data(), static_cast<std::size_t>(length)};
}

void check_mpi(int result, std::string_view call) {
  if (result != MPI_SUCCESS) throw Error(ErrorCode::internal, concat(call, ": ", mpi_error_text(result)));
}

void MpiRequests::send(MPI_Comm communicator, Bytes data, int rank, int tag) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int result = MPI_Isend(data.data(), static_cast<int>(data.size()), MPI_BYTE, rank, tag, communicator, &request);
  add(request, result, rank);
}

void MpiRequests::receive(MPI_Comm communicator, MutableBytes data, int rank, int tag) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int result = MPI_Irecv(data.data(), static_cast<int>(data.size()), MPI_BYTE, rank, tag, communicator, &request);
  add(request, result, rank);
}

void MpiRequests::add(MPI_Request request, int result, int rank) {
  if (result != MPI_SUCCESS && !trouble_) trouble_ = Trouble{rank, mpi_error_text(result)};
  requests_.push_back(result == MPI_SUCCESS ? request : MPI_REQUEST_NULL);
  ranks_.push_back(rank);
  received_.push_back(0);
  indices_.push_back(0);
  statuses_.push_back({});
}

bool MpiRequests::test() {
  if (trouble_) return false;
  if (requests_.empty()) return true;
  int count = 0;
  const int result =
      MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, indices_.data(), statuses_.data());
  if (count == MPI_UNDEFINED) return true;  // none was left
  for (int i = 0; i < count; ++i) {
    const auto index = static_cast<std::size_t>(indices_[static_cast<std::size_t>(i)]);
    const MPI_Status& status = statuses_[static_cast<std::size_t>(i)];
    if (result == MPI_ERR_IN_STATUS && status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING) {
      trouble_ = Trouble{ranks_[index], mpi_error_text(status.MPI_ERROR)};
      return false;
    }
    int bytes = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
    received_[index] = bytes == MPI_UNDEFINED ? 0 : static_cast<std::size_t>(bytes);
  }
  if (result != MPI_SUCCESS && result != MPI_ERR_IN_STATUS) {
    trouble_ = Trouble{waited_for().empty() ? ranks_.front() : waited_for().front(), mpi_error_text(result)};
    return false;
  }
  return !has_pending();
}

bool MpiRequests::has_pending() const noexcept {
  return std::ranges::any_of(requests_, [](MPI_Request request) { return request != MPI_REQUEST_NULL; });
}

std::vector<int> MpiRequests::waited_for() const {
  std::vector<int> ranks;
  for (std::size_t i = 0; i < requests_.size(); ++i)
    if (!is_done(i) && std::ranges::find(ranks, ranks_[i]) == ranks.end()) ranks.push_back(ranks_[i]);
  return ranks;
}

void MpiRequests::clear() noexcept {
  requests_.clear();
  ranks_.clear();
  indices_.clear();
  received_.clear();
  statuses_.clear();
  trouble_.reset();
}

}  // namespace lamella::comm
