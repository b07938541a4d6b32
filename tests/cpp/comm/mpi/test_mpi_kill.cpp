// Jobs under mpirun in which a rank is killed or stopped in the middle of collectives (reliability.md, E1 and E2): the
// job ends with an exit code that is not 0, somebody names the rank, and nothing is left of it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "seed.h"

extern char** environ;

namespace lamella::comm::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr int ranks = 3, failed_code = 5;
constexpr std::chrono::milliseconds deadline = 1000ms;

std::string content(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return std::move(text).str();
}

/// A folder that goes with what is in it.
class Folder {
 public:
  explicit Folder(const fs::path& parent) {
    std::string name = (parent / "lamella-mpi-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), name);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] const fs::path& path() const noexcept { return path_; }

 private:
  fs::path path_;
};

/// Processes that live and have `mark` in their environment: a job's, wherever their parents are.
std::vector<std::string> marked_processes(const std::string& mark) {
  std::vector<std::string> found;
  for (const fs::directory_entry& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (content(entry.path() / "environ").find(mark) != std::string::npos)  // empty of those that have ended
      found.push_back(name + " " + content(entry.path() / "comm"));
  }
  return found;
}

struct Victim {
  int rank;
  int signal;
  std::chrono::microseconds after;
};

struct Outcome {
  int code = -1;  // of mpirun; 128 and more: a signal
  std::chrono::milliseconds took{0};
  std::string error;  // mpirun's standard error
  std::vector<std::string> reports;  // by rank; of the victim and of those that mpirun ended before they could, ""
};

/// Runs mpirun with temporary files and shared memory in folders of ours, so that what is left there is of this job.
Outcome run_job(const std::vector<std::string>& options, const Victim& victim) {
  const Folder folder(fs::temp_directory_path()), memory("/dev/shm");
  const std::string mark = "LAMELLA_TEST_JOB=" + folder.path().string();
  fs::create_directory(folder.path() / "tmp");
  fs::create_directory(folder.path() / "reports");

  std::vector<std::string> words = {LAMELLA_MPIRUN, "--oversubscribe", "--allow-run-as-root", "-n",
                                    std::to_string(ranks)};
  words.insert(words.end(), options.begin(), options.end());
  for (const std::string& word :
       {std::string(LAMELLA_MPI_VICTIM), (folder.path() / "reports").string(), std::to_string(victim.rank),
        std::to_string(victim.signal), std::to_string(victim.after.count()), std::to_string(deadline.count())})
    words.push_back(word);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::string temporary = "TMPDIR=" + (folder.path() / "tmp").string(), marked = mark;
  std::string shared = "OMPI_MCA_btl_sm_backing_directory=" + memory.path().string();
  std::vector<char*> variables;
  for (char** variable = environ; *variable != nullptr; ++variable)
    if (std::string_view(*variable).substr(0, 7) != "TMPDIR=") variables.push_back(*variable);
  variables.push_back(temporary.data());
  variables.push_back(marked.data());
  variables.push_back(shared.data());
  variables.push_back(nullptr);
  const std::string errors = (folder.path() / "errors").string();

  const auto begin = Clock::now();
  const pid_t child = ::fork();
  if (child == 0) {
    const int file = ::open(errors.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600), none = ::open("/dev/null", O_RDWR);
    if (file < 0 || none < 0 || ::dup2(none, 0) < 0 || ::dup2(none, 1) < 0 || ::dup2(file, 2) < 0) ::_exit(126);
    ::execve(arguments[0], arguments.data(), variables.data());
    ::_exit(127);
  }
  Outcome outcome;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0 && Clock::now() - begin < 40s) std::this_thread::sleep_for(5ms);
  outcome.took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.error = content(errors);
  for (int rank = 0; rank < ranks; ++rank)
    outcome.reports.push_back(content(folder.path() / "reports" / ("rank-" + std::to_string(rank))));

  // Within 30 s nothing is left, or it is ended here.
  std::vector<std::string> left;
  for (const auto end = begin + 30s;; std::this_thread::sleep_for(20ms)) {
    left = marked_processes(mark);
    if (left.empty() || Clock::now() > end) break;
  }
  std::printf(
      "rank %d, signal %d after %lld us: mpirun took %lld ms, its processes %lld ms\n", victim.rank, victim.signal,
      static_cast<long long>(victim.after.count()), static_cast<long long>(outcome.took.count()),
      static_cast<long long>(std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count()));
  for (const std::string& process : left) {
    ADD_FAILURE() << "left behind: process " << process;
    ::kill(static_cast<pid_t>(std::strtol(process.c_str(), nullptr, 10)), SIGKILL);
  }
  for (const fs::path& place : {folder.path() / "tmp", memory.path()})
    for (const fs::directory_entry& entry : fs::directory_iterator(place))
      ADD_FAILURE() << "left behind: " << entry.path();
  return outcome;
}

std::string host() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

class MpiKill : public ::testing::Test {
 protected:
  Victim draw(int signal) {
    return {.rank = static_cast<int>(random_() % ranks),
            .signal = signal,
            .after = std::chrono::microseconds(random_() % 200'000)};
  }

  /// A survivor's words, of the collective that it was in.
  static void expect_survivors_name(const Victim& victim, const Outcome& outcome) {
    const std::string begin = "RANK_FAILED rank " + std::to_string(victim.rank) + " on " + host() + " failed: ";
    for (int rank = 0; rank < ranks; ++rank) {
      if (rank == victim.rank) continue;
      EXPECT_EQ(outcome.reports[static_cast<std::size_t>(rank)].substr(0, begin.size()), begin)
          << "rank " << rank << " of a job that took " << outcome.took.count() << " ms; it said " << outcome.error;
    }
  }

  const std::uint64_t seed_ = lamella::testing::fresh_seed();
  const ::testing::ScopedTrace trace_{__FILE__, __LINE__, ::testing::Message() << "LAMELLA_SEED=" << seed_};
  std::mt19937_64 random_{seed_};
};

/// mpirun sees that a rank is gone, ends the others at once and says which it was.
TEST_F(MpiKill, MpirunEndsAJobOfWhichARankIsKilled) {
  for (int round = 0; round < (lamella::testing::full_stage() ? 30 : 6); ++round) {
    const Victim victim = draw(SIGKILL);
    SCOPED_TRACE(::testing::Message() << "rank " << victim.rank << " after " << victim.after.count() << " us");
    const Outcome outcome = run_job({}, victim);
    EXPECT_NE(outcome.code, 0);
    EXPECT_LT(outcome.took, 30s);
    EXPECT_NE(outcome.error.find("rank " + std::to_string(victim.rank)), std::string::npos) << outcome.error;
  }
}

/// Where mpirun lets the others go on, they find out within the deadline.
TEST_F(MpiKill, SurvivorsNameTheRankThatWasKilled) {
  for (int round = 0; round < (lamella::testing::full_stage() ? 20 : 3); ++round) {
    const Victim victim = draw(SIGKILL);
    SCOPED_TRACE(::testing::Message() << "rank " << victim.rank << " after " << victim.after.count() << " us");
    const Outcome outcome = run_job({"--enable-recovery"}, victim);
    EXPECT_NE(outcome.code, 0);
    EXPECT_LT(outcome.took, 10s);
    expect_survivors_name(victim, outcome);
  }
}

/// Nobody but the other ranks sees that a rank stands still. They say so and exit, upon which mpirun ends the stopped
/// one too.
TEST_F(MpiKill, SurvivorsNameTheRankThatStandsStill) {
  for (int round = 0; round < (lamella::testing::full_stage() ? 20 : 4); ++round) {
    const Victim victim = draw(SIGSTOP);
    SCOPED_TRACE(::testing::Message() << "rank " << victim.rank << " after " << victim.after.count() << " us");
    const Outcome outcome = run_job({}, victim);
    EXPECT_EQ(outcome.code, failed_code);
    EXPECT_LT(outcome.took, 30s);
    expect_survivors_name(victim, outcome);
    EXPECT_NE(outcome.error.find("rank " + std::to_string(victim.rank) + " on "), std::string::npos) << outcome.error;
  }
}

/// MPI itself waits for a rank that never begins, without saying for which; the others give it up after init_timeout.
TEST_F(MpiKill, ARankThatIsLostBeforeMpiBeginsHoldsNobodyUp) {
  const Outcome killed = run_job({}, {.rank = 1, .signal = SIGKILL, .after = -1us});
  EXPECT_NE(killed.code, 0);
  EXPECT_NE(killed.error.find("rank 1"), std::string::npos) << killed.error;
  const Outcome stopped = run_job({}, {.rank = 1, .signal = SIGSTOP, .after = -1us});
  EXPECT_NE(stopped.code, 0);
  EXPECT_LT(stopped.took, 15s);
  EXPECT_NE(stopped.error.find("MPI_Init_thread did not return within 3 s"), std::string::npos) << stopped.error;
}

}  // namespace
}  // namespace lamella::comm::testing
