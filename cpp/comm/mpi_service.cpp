#include "comm/mpi_service.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <vector>

#include "base/check.h"
#include "comm/mpi_requests.h"

namespace lamella::comm {
namespace {

/// Returns whether MPI was begun here, and is to be ended here.
bool begin_mpi() {
  int has_ended = 0, has_begun = 0, threads = MPI_THREAD_SINGLE;
  check_mpi(MPI_Finalized(&has_ended), "MPI_Finalized");
  if (has_ended != 0)
    throw Error(ErrorCode::invalid_argument,
                "MPI has ended in this process and cannot begin again; a process that wants several worlds one after "
                "another calls MPI_Init_thread before the first and MPI_Finalize after the last");
  check_mpi(MPI_Initialized(&has_begun), "MPI_Initialized");
  if (has_begun == 0) {
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &threads), "MPI_Init_thread");
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  } else {
    check_mpi(MPI_Query_thread(&threads), "MPI_Query_thread");
  }
  if (threads < MPI_THREAD_MULTIPLE)
    throw Error(ErrorCode::invalid_argument,
                concat("MPI gives this process the thread level ", threads, "; expected MPI_THREAD_MULTIPLE (",
                       MPI_THREAD_MULTIPLE, "): use an MPI that has it, or ask for it where MPI is begun"));
  return has_begun == 0;
}

}  // namespace

void Backoff::pause() {
  constexpr std::chrono::microseconds first{20}, longest{1000};
  ++pauses_;
  if (pauses_ <= polls) return;
  if (pauses_ <= polls + yields) {
    std::this_thread::yield();
    return;
  }
  sleep_ = std::min(longest, std::max(first, sleep_ * 2));
  std::this_thread::sleep_for(sleep_);
}

struct MpiService::Shared {
  enum class Phase : std::uint8_t { beginning, running, ending, ended };

  std::mutex mutex;
  std::condition_variable changed;
  Phase phase = Phase::beginning;
  bool stops = false;
  bool began_mpi = false;
  std::exception_ptr error;
  std::function<void()> free_communicators;
  std::vector<MPI_Request> requests;
  std::vector<Buffer> buffers;

  void run();
  void move_messages(std::unique_lock<std::mutex>& lock);
};

void MpiService::Shared::run() {
  bool began = false;
  std::exception_ptr refused;
  try {
    began = begin_mpi();
  } catch (...) {
    refused = std::current_exception();
  }
  std::unique_lock lock(mutex);
  began_mpi = began;
  error = refused;
  phase = Phase::running;
  changed.notify_all();
  while (phase == Phase::running && !stops) {
    if (requests.empty()) changed.wait(lock);
    else move_messages(lock);
  }
  if (phase != Phase::ending) return;
  lock.unlock();
  try {
    free_communicators();
    if (began) check_mpi(MPI_Finalize(), "MPI_Finalize");
  } catch (...) {
    refused = std::current_exception();
  }
  lock.lock();
  error = refused;
  phase = Phase::ended;
  changed.notify_all();
}

/// Until all have left or the phase changes. A message that MPI gives up is not sent: its receiver says so.
void MpiService::Shared::move_messages(std::unique_lock<std::mutex>& lock) {
  constexpr int tests = 64;  // at a time: every test moves all of them, and thousands may be on their way
  Backoff backoff;
  std::size_t next = 0;
  while (!requests.empty() && phase == Phase::running && !stops) {
    bool has_moved = false;
    for (int i = 0; i < tests && !requests.empty(); ++i) {
      next = next < requests.size() ? next : 0;
      int done = 0;
      const int result = MPI_Test(&requests[next], &done, MPI_STATUS_IGNORE);
      if (result == MPI_SUCCESS && done == 0) {
        ++next;
        continue;
      }
      has_moved = true;
      requests[next] = requests.back();
      requests.pop_back();
      std::swap(buffers[next], buffers.back());
      buffers.pop_back();
    }
    if (has_moved) backoff = Backoff();
    lock.unlock();
    backoff.pause();
    lock.lock();
  }
}

MpiService::MpiService(std::chrono::milliseconds limit) : shared_(std::make_shared<Shared>()) {
  try {
    thread_ = std::thread([shared = shared_] { shared->run(); });
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::out_of_memory, concat("no thread for MPI: ", error.what()));
  }
  std::unique_lock lock(shared_->mutex);
  const bool has_begun =
      shared_->changed.wait_for(lock, limit, [&] { return shared_->phase != Shared::Phase::beginning; });
  shared_->stops = !has_begun || shared_->error;
  shared_->changed.notify_all();
  const std::exception_ptr error = shared_->error;
  lock.unlock();
  if (has_begun && !error) return;
  if (has_begun) thread_.join();
  else thread_.detach();
  if (error) std::rethrow_exception(error);
  throw Error(ErrorCode::rank_failed,
              concat("MPI_Init_thread did not return within ", static_cast<double>(limit.count()) / 1e3,
                     " s: not all ranks of the job came to it, or they cannot reach each other"));
}

MpiService::~MpiService() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stops = true;
    for (Buffer& buffer : shared_->buffers) static_cast<void>(buffer.release());
    shared_->changed.notify_all();
  }
  thread_.join();
}

void MpiService::keep(MPI_Request request, Buffer buffer) {
  const std::lock_guard lock(shared_->mutex);
  shared_->buffers.push_back(std::move(buffer));
  shared_->requests.push_back(request);
  shared_->changed.notify_all();
}

bool MpiService::is_idle() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->requests.empty();
}

bool MpiService::end(std::function<void()> free_communicators, std::chrono::milliseconds limit) {
  std::unique_lock lock(shared_->mutex);
  shared_->free_communicators = std::move(free_communicators);
  shared_->phase = Shared::Phase::ending;
  shared_->changed.notify_all();
  const bool has_ended = shared_->changed.wait_for(lock, limit, [&] { return shared_->phase == Shared::Phase::ended; });
  lock.unlock();
  if (has_ended) thread_.join();
  else thread_.detach();
  return has_ended;
}

}  // namespace lamella::comm
