// Which rank of a job this process is, as the launcher that started it says in environment variables.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace lamella::comm {

enum class Launcher : std::uint8_t { none, open_mpi, hydra, slurm, torchrun };
/// As people call it: "mpirun (Open MPI)", ...
[[nodiscard]] std::string_view to_string(Launcher launcher) noexcept;

/// `local_rank` and `local_size` count the ranks of this machine; -1 where the launcher says nothing of them.
struct Launch {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;
  Launcher launcher = Launcher::none;

  [[nodiscard]] bool is_parallel() const noexcept { return size > 1; }
  bool operator==(const Launch&) const = default;
};

/// The value of a variable, null where it is not set: std::getenv, or what a test makes up.
using Environment = std::function<const char*(const char* name)>;

/// Reads what mpirun of Open MPI (OMPI_COMM_WORLD_*), mpiexec of MPICH and Intel MPI (PMI_*, MPI_LOCAL*), srun
/// (SLURM_*) and torchrun (RANK, WORLD_SIZE, LOCAL_*, MASTER_ADDR) set; without any of them one rank. Where several
/// speak, the one that started this process counts: mpirun and torchrun inside a Slurm job, not the job. Slurm's count
/// only in a step of srun, since a batch script has them too, and is no rank. Errors: invalid_argument naming the
/// variables where one is missing, is no such number, or says something else than another that must agree.
[[nodiscard]] Launch launch_of(const Environment& environment);
/// Of this process.
[[nodiscard]] Launch launch_of_process();

}  // namespace lamella::comm
