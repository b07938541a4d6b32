#include "comm/mpi_state.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <span>

#include "base/check.h"
#include "comm/call.h"
#include "comm/launch.h"

namespace lamella::comm {
namespace {

using Clock = MpiState::Clock;

constexpr std::size_t host_bytes = 64, report_bytes = 1000;
constexpr int roll_tag = 0x4c61;  // on MPI_COMM_WORLD, which is not ours alone

/// What rank 0 sends to all that came, before their names: a report where some did not.
struct Roll {
  std::uint32_t report_length = 0;
  std::array<char, report_bytes> report{};
};

using Host = std::array<char, host_bytes>;

Host own_host() {
  Host host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) std::strcpy(host.data(), "unknown host");
  return host;
}

std::string text_of(const Host& host) { return {host.data(), ::strnlen(host.data(), host.size())}; }

/// Memory for MPI to write to, which may have to stay behind.
MpiService::Buffer buffer_of(std::size_t bytes) { return std::make_unique<std::byte[]>(bytes); }

std::string absent_at_start(const std::vector<int>& ranks, std::chrono::milliseconds limit) {
  std::vector<std::string> others;
  for (std::size_t i = 1; i < ranks.size(); ++i) others.push_back(concat("rank ", ranks[i]));
  return concat("rank ", ranks.front(), " failed: ", absence("the start", "world", limit), further_absent(others));
}

void expect_same_launcher(int size) {
  const Launch launch = launch_of_process();
  if (launch.launcher == Launcher::none || launch.size == size) return;
  throw Error(ErrorCode::invalid_argument,
              concat(to_string(launch.launcher), " started ", launch.size, " ranks, and MPI knows ", size,
                     launch.launcher == Launcher::torchrun
                         ? ": torchrun starts no ranks of MPI; use mpirun or srun"
                         : ": use the mpirun of the MPI that Lamella was built with, or srun --mpi=pmix"));
}

}  // namespace

struct MpiState::Control {
  enum class Kind : std::uint32_t { report, question, answer };

  Kind kind = Kind::report;
  std::int32_t rank = 0;     // that failed, or that sends
  std::uint32_t number = 0;  // of the question; bytes of the report
  std::array<char, report_bytes> text{};
};

MpiState::MpiState(const MpiOptions& options) : options_(options), service_(options.init_timeout) {
  int size = 0;
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  expect_same_launcher(size);
  hosts_.resize(static_cast<std::size_t>(size));
  answers_ = std::vector<std::atomic<std::uint32_t>>(hosts_.size());
  call_roll();
  duplicate_world();
}

/// All tell rank 0 where they are, and it tells all: so that who stays away is known by name before MPI makes
/// communicators, which would only wait.
void MpiState::call_roll() {
  const Clock::time_point end = Clock::now() + options_.init_timeout;
  const std::size_t roll_bytes = sizeof(Roll) + hosts_.size() * sizeof(Host);
  MpiService::Buffer memory = buffer_of(roll_bytes);
  Roll& roll = *new (memory.get()) Roll;
  Host* const table = new (memory.get() + sizeof(Roll)) Host[hosts_.size()];
  const auto entry = [&](int rank) { return std::as_writable_bytes(std::span(&table[rank], 1)); };
  table[rank_] = own_host();
  try {
    MpiRequests mine, others;
    if (rank_ == 0) {
      for (int rank = 1; rank < ranks(); ++rank) others.receive(MPI_COMM_WORLD, entry(rank), rank, roll_tag);
      if (!wait(others, end)) {
        const std::string report = absent_at_start(others.waited_for(), options_.init_timeout);
        roll.report_length = static_cast<std::uint32_t>(std::min(report.size(), report_bytes));
        std::copy_n(report.data(), roll.report_length, roll.report.data());
      }
      for (int rank = 1; rank < ranks(); ++rank) mine.send(MPI_COMM_WORLD, {memory.get(), roll_bytes}, rank, roll_tag);
      // Those who did not come do not take it. A second is for what goes to the others to leave.
      const bool all_have_it = wait(mine, roll.report_length == 0 ? end : Clock::now() + std::chrono::seconds(1));
      check(all_have_it || roll.report_length > 0, "all ranks came and do not take the roll");
    } else {
      mine.send(MPI_COMM_WORLD, entry(rank_), 0, roll_tag);
      others.receive(MPI_COMM_WORLD, {memory.get(), roll_bytes}, 0, roll_tag);
      // Rank 0 may have begun to wait later than this one, and has to tell who is absent.
      if (!wait(others, end + options_.init_timeout / 4 + std::chrono::seconds(1)))
        throw Error(ErrorCode::rank_failed, absent_at_start({0}, options_.init_timeout));
      check(wait(mine, end), "rank 0 answers what it did not receive");
    }
    if (roll.report_length > 0)
      throw Error(ErrorCode::rank_failed,
                  {roll.report.data(), std::min<std::size_t>(roll.report_length, report_bytes)});
    for (std::size_t i = 0; i < hosts_.size(); ++i) hosts_[i] = text_of(table[i]);
  } catch (...) {
    static_cast<void>(memory.release());  // MPI may still read and write it
    throw;
  }
}

void MpiState::duplicate_world() {
  const Clock::time_point end = Clock::now() + options_.init_timeout;
  for (MPI_Comm* copy : {&data_, &control_}) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Comm_idup(MPI_COMM_WORLD, copy, &request), "MPI_Comm_idup");
    Backoff backoff;
    for (int done = 0; done == 0; backoff.pause()) {
      check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done == 0 && Clock::now() > end)
        throw Error(ErrorCode::rank_failed, "all ranks came, but one was lost before they had a communicator");
    }
    check_mpi(MPI_Comm_set_errhandler(*copy, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }
  int* most = nullptr;
  int is_known = 0;
  check_mpi(MPI_Comm_get_attr(data_, MPI_TAG_UB, static_cast<void*>(&most), &is_known), "MPI_Comm_get_attr");
  last_tag_ = is_known != 0 ? *most : 32767;  // as many as every MPI has
  control_buffer_ = buffer_of(sizeof(Control));
  check_mpi(MPI_Irecv(control_buffer_.get(), sizeof(Control), MPI_BYTE, MPI_ANY_SOURCE, 0, control_, &control_request_),
            "MPI_Irecv");
}

/// Without a failure all ranks come here sooner or later, and then MPI can be ended in peace. Otherwise it is left as
/// it is, with the memory that it knows of.
MpiState::~MpiState() {
  if (meet_last()) {
    const bool is_done = service_.end(
        // By value: where MPI takes longer than the limit, this goes on when the state is gone.
        [request = control_request_, data = data_, control = control_]() mutable {
          check_mpi(MPI_Cancel(&request), "MPI_Cancel");
          check_mpi(MPI_Wait(&request, MPI_STATUS_IGNORE), "MPI_Wait");
          check_mpi(MPI_Comm_free(&data), "MPI_Comm_free");
          check_mpi(MPI_Comm_free(&control), "MPI_Comm_free");
        },
        options_.deadline);
    if (is_done) return;
  }
  static_cast<void>(control_buffer_.release());
}

bool MpiState::meet_last() noexcept {
  try {
    if (control_ == MPI_COMM_NULL || has_failed()) return false;
    leaves_.store(true);
    const Clock::time_point end = Clock::now() + options_.deadline;
    Backoff backoff;
    for (; !service_.is_idle(); backoff.pause()) {  // what was sent is received yet
      look();
      if (Clock::now() > end) return false;
    }
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibarrier(control_, &request), "MPI_Ibarrier");
    for (int done = 0;; backoff.pause()) {
      check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done != 0) return true;
      look();
      if (Clock::now() > end) return false;
    }
  } catch (const std::exception&) {
    return false;
  }
}

std::string MpiState::name_of(int rank) const {
  const std::string& host = hosts_.at(static_cast<std::size_t>(rank));
  return host.empty() ? concat("rank ", rank) : concat("rank ", rank, " on ", host);
}

int MpiState::take_tags() {
  if (next_tag_ >= last_tag_)
    throw Error(ErrorCode::out_of_memory, concat("MPI has no more than ", last_tag_, " tags, two for every group"));
  const int tag = next_tag_;
  next_tag_ += 2;
  return tag;
}

bool MpiState::note_failure(int rank, std::string_view cause) noexcept {
  const std::lock_guard lock(failure_mutex_);
  if (has_failed()) return false;
  try {
    failure_ = concat(name_of(rank), " failed: ", cause);
  } catch (const std::exception&) {  // throw_failure() then says only that
    failure_.clear();
  }
  failed_.store(true, std::memory_order_release);
  return true;
}

void MpiState::throw_failure() {
  const std::lock_guard lock(failure_mutex_);
  throw Error(ErrorCode::rank_failed, failure_.empty() ? "a rank failed, and memory for more words ran out" : failure_);
}

/// The report has left when this returns, but for ranks that are out of reach: a process may end right after.
void MpiState::fail(int rank, std::string_view cause) noexcept {
  if (!note_failure(rank, cause) || control_ == MPI_COMM_NULL) return;
  try {
    Control message;
    message.rank = rank;
    message.number = static_cast<std::uint32_t>(std::min(cause.size(), report_bytes));
    cause.copy(message.text.data(), message.number);
    MpiService::Buffer memory = buffer_of(sizeof message);
    std::memcpy(memory.get(), &message, sizeof message);
    MpiRequests reports;
    const Bytes bytes{memory.release(), sizeof message};  // MPI may read it for ever
    for (int other = 0; other < ranks(); ++other)
      if (other != rank_ && other != rank) reports.send(control_, bytes, other, 0);
    if (rank != rank_) reports.send(control_, bytes, rank, 0);  // should it live: last, and not waited for
    const Clock::time_point end = Clock::now() + std::chrono::seconds(1);
    Backoff backoff;
    while (!reports.test() && !reports.trouble() && Clock::now() < end) {
      const std::vector<int> left = reports.waited_for();
      if (left.size() == 1 && left.front() == rank) break;
      backoff.pause();
    }
  } catch (const std::exception&) {  // then the others find out by themselves
    return;
  }
}

void MpiState::look() {
  if (!has_failed()) {
    const std::unique_lock lock(control_mutex_, std::try_to_lock);
    while (lock.owns_lock() && control_request_ != MPI_REQUEST_NULL && !has_failed()) {
      int done = 0;
      const int result = MPI_Test(&control_request_, &done, MPI_STATUS_IGNORE);
      if (result == MPI_SUCCESS && done == 0) break;
      Control message;
      std::memcpy(&message, control_buffer_.get(), sizeof message);
      if (result == MPI_SUCCESS) take_control_message(message);
      check_mpi(
          MPI_Irecv(control_buffer_.get(), sizeof(Control), MPI_BYTE, MPI_ANY_SOURCE, 0, control_, &control_request_),
          "MPI_Irecv");
    }
  }
  if (has_failed()) throw_failure();
}

void MpiState::listen(std::chrono::milliseconds time) {
  const Clock::time_point end = Clock::now() + time;
  for (Backoff backoff; Clock::now() < end; backoff.pause()) look();
}

void MpiState::take_control_message(const Control& message) noexcept {
  if (message.rank < 0 || message.rank >= ranks()) return;
  switch (message.kind) {
    case Control::Kind::report:
      static_cast<void>(
          note_failure(message.rank, {message.text.data(), std::min<std::size_t>(message.number, report_bytes)}));
      return;
    case Control::Kind::question:  // who leaves will come to nothing any more
      if (leaves_.load()) return;
      send_control({.kind = Control::Kind::answer, .rank = rank_, .number = message.number}, message.rank);
      return;
    case Control::Kind::answer: answers_[static_cast<std::size_t>(message.rank)].store(message.number); return;
  }
}

void MpiState::send_control(const Control& message, int to) noexcept {
  try {
    MpiService::Buffer buffer = buffer_of(sizeof message);
    std::memcpy(buffer.get(), &message, sizeof message);
    MPI_Request request = MPI_REQUEST_NULL;
    if (MPI_Isend(buffer.get(), sizeof message, MPI_BYTE, to, 0, control_, &request) == MPI_SUCCESS)
      service_.keep(request, std::move(buffer));
  } catch (const std::exception&) {  // who asked will think that this rank does not wait
    return;
  }
}

void MpiState::send_away(MpiService::Buffer buffer, Bytes message, int to, int tag) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int result = MPI_Isend(message.data(), static_cast<int>(message.size()), MPI_BYTE, to, tag, data_, &request);
  if (result != MPI_SUCCESS) {
    fail(to, concat("MPI cannot send to it: ", mpi_error_text(result)));
    throw_failure();
  }
  int done = 0;
  check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
  if (done == 0) service_.keep(request, std::move(buffer));
}

bool MpiState::wait(MpiRequests& requests, Clock::time_point end) {
  constexpr int looks = 16;  // control messages are rare, and looking costs as much as a test
  Backoff backoff;
  for (int i = 1; !requests.test(); ++i) {
    if (requests.trouble()) {
      fail(requests.trouble()->rank, concat("MPI reports ", requests.trouble()->text));
      throw_failure();
    }
    if (backoff.sleeps() || i % looks == 0) look();
    if (Clock::now() > end) return false;
    backoff.pause();
  }
  return true;
}

std::chrono::milliseconds MpiState::grace(std::chrono::milliseconds deadline) noexcept {
  return std::min(deadline / 4, std::chrono::milliseconds(2000));
}

std::uint32_t MpiState::ask(const std::vector<int>& ranks) {
  const std::uint32_t number = questions_.fetch_add(1) + 1;
  if (ranks.size() > 1)
    for (const int rank : ranks) send_control({.kind = Control::Kind::question, .rank = rank_, .number = number}, rank);
  return number;
}

void MpiState::accuse(const std::vector<int>& ranks, std::uint32_t question, std::string_view what,
                      std::string_view group, std::chrono::milliseconds deadline) {
  std::vector<int> silent;
  std::ranges::copy_if(ranks, std::back_inserter(silent), [&](int rank) {
    return static_cast<std::int32_t>(answers_[static_cast<std::size_t>(rank)].load() - question) < 0;
  });
  if (silent.empty()) silent = ranks;
  std::vector<std::string> others;
  for (std::size_t i = 1; i < silent.size(); ++i) others.push_back(name_of(silent[i]));
  fail(silent.front(), absence(what, group, deadline) + further_absent(others));
  throw_failure();
}

}  // namespace lamella::comm
