#include "comm/launch.h"

#include <charconv>
#include <cstdlib>
#include <optional>

#include "base/check.h"

namespace lamella::comm {
namespace {

/// The variables in which a launcher says where a process stands; `missing` says that it has no such one.
constexpr const char* missing = nullptr;
struct Names {
  Launcher launcher;
  const char *rank, *size, *local_rank, *local_size;
};
constexpr Names open_mpi{Launcher::open_mpi, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                         "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names hydra{Launcher::hydra, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
constexpr Names slurm{Launcher::slurm, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", missing};
constexpr Names torchrun{Launcher::torchrun, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};

class Reader {
 public:
  explicit Reader(const Environment& environment) : environment_(environment) {}

  [[nodiscard]] bool has(const char* name) const { return environment_(name) != nullptr; }

  [[nodiscard]] std::optional<int> number(const char* name) const {
    const char* value = name == missing ? nullptr : environment_(name);
    if (value == nullptr) return std::nullopt;
    const std::string_view text = value;
    int number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < 0)
      throw Error(ErrorCode::invalid_argument, concat("the environment variable ", name, " is ", lamella::quoted(text),
                                                      "; expected a number from 0 on"));
    return number;
  }

  /// A number that must be there, since `because` is.
  [[nodiscard]] int needed(const char* name, const char* because) const {
    if (const std::optional<int> found = number(name)) return *found;
    throw Error(ErrorCode::invalid_argument,
                concat("the environment has ", because, " but no ", name, "; start all ranks with one launcher"));
  }

  [[nodiscard]] std::optional<Launch> read(const Names& names) const {
    if (!has(names.rank) && !has(names.size)) return std::nullopt;
    Launch launch{.rank = needed(names.rank, names.size),
                  .size = needed(names.size, names.rank),
                  .local_rank = number(names.local_rank).value_or(-1),
                  .local_size = number(names.local_size).value_or(-1),
                  .launcher = names.launcher};
    expect_below(names.rank, launch.rank, names.size, launch.size);
    if (launch.local_size >= 0) {
      if (launch.local_rank >= 0)
        expect_below(names.local_rank, launch.local_rank, names.local_size, launch.local_size);
      if (launch.local_size > launch.size) contradict(names.local_size, launch.local_size, names.size, launch.size);
    }
    if (launch.size == 1) launch.local_rank = 0, launch.local_size = 1;
    return launch;
  }

  [[noreturn]] static void contradict(const char* one, int its, const char* other, int others) {
    throw Error(ErrorCode::invalid_argument,
                concat("the environment variables ", one, "=", its, " and ", other, "=", others,
                       " contradict each other; start all ranks with one launcher"));
  }

 private:
  static void expect_below(const char* rank, int its, const char* size, int most) {
    if (its >= most) contradict(rank, its, size, most);
  }

  const Environment& environment_;
};

/// srun starts steps with numbers from 0 on; the batch script and what Slurm starts for itself have none, or huge ones.
bool in_slurm_step(const Environment& environment) {
  const char* step = environment("SLURM_STEP_ID");
  if (step == nullptr) return false;
  return std::strtoull(step, nullptr, 10) < 0xffff'0000ULL;
}

}  // namespace

std::string_view to_string(Launcher launcher) noexcept {
  switch (launcher) {
    case Launcher::none: return "no launcher";
    case Launcher::open_mpi: return "mpirun (Open MPI)";
    case Launcher::hydra: return "mpiexec (MPICH, Intel MPI)";
    case Launcher::slurm: return "srun (Slurm)";
    case Launcher::torchrun: return "torchrun";
  }
  return "?";
}

Launch launch_of(const Environment& environment) {
  const Reader reader(environment);
  const std::optional<Launch> mpi = reader.read(open_mpi);
  const std::optional<int> pmix = reader.number("PMIX_RANK");
  if (mpi && pmix && *pmix != mpi->rank) Reader::contradict("PMIX_RANK", *pmix, open_mpi.rank, mpi->rank);
  // RANK and WORLD_SIZE alone are too common names; with the address at which they meet they are torchrun's, or a
  // script's that stands in for it. A script may also set all of them from mpirun's variables.
  const bool torch_meets = reader.has("MASTER_ADDR") && (reader.has(torchrun.rank) || reader.has(torchrun.size));
  const std::optional<Launch> torch = torch_meets ? reader.read(torchrun) : std::nullopt;
  if (mpi && torch) {
    if (mpi->rank != torch->rank) Reader::contradict(open_mpi.rank, mpi->rank, torchrun.rank, torch->rank);
    if (mpi->size != torch->size) Reader::contradict(open_mpi.size, mpi->size, torchrun.size, torch->size);
  }
  if (mpi) return *mpi;
  if (torch) return *torch;
  const bool is_step = in_slurm_step(environment);
  const std::optional<Launch> step = is_step ? reader.read(slurm) : std::nullopt;
  const std::optional<Launch> pmi = reader.read(hydra);
  if (pmi && step &&
      pmi->size == step->size) {  // srun sets both; mpiexec inside a job runs below steps that count machines
    if (pmi->rank != step->rank) Reader::contradict(hydra.rank, pmi->rank, slurm.rank, step->rank);
    return *step;
  }
  if (pmi) return *pmi;
  if (step) return *step;
  if (pmix)
    throw Error(ErrorCode::invalid_argument,
                concat("the environment has PMIX_RANK=", *pmix,
                       " but nothing that says how many ranks there are; "
                       "expected OMPI_COMM_WORLD_SIZE, PMI_SIZE or SLURM_NTASKS with SLURM_STEP_ID"));
  return {};
}

Launch launch_of_process() {
  return launch_of([](const char* name) { return std::getenv(name); });
}

}  // namespace lamella::comm
