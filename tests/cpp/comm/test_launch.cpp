// What made-up environments say of a process, and which of them are refused.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "comm/launch.h"
#include "lamella/error.h"

namespace lamella::comm::testing {
namespace {

using Variables = std::map<std::string, std::string>;

Launch launch_with(const Variables& variables) {
  return launch_of([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

/// The message of the invalid_argument that it throws.
std::string refusal(const Variables& variables) {
  try {
    static_cast<void>(launch_with(variables));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "";
}

Variables both(Variables one, const Variables& other) {
  one.insert(other.begin(), other.end());
  return one;
}

// NOLINTBEGIN(bugprone-throwing-static-initialization): a test program that cannot start has failed
const Variables mpirun = {{"OMPI_COMM_WORLD_RANK", "5"},
                          {"OMPI_COMM_WORLD_SIZE", "8"},
                          {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                          {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                          {"PMIX_RANK", "5"}};
const Variables mpiexec = {{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "2"}};
const Variables srun = {
    {"SLURM_PROCID", "3"}, {"SLURM_NTASKS", "4"}, {"SLURM_LOCALID", "1"}, {"SLURM_STEP_ID", "0"}, {"PMIX_RANK", "3"}};
const Variables torchrun = {{"RANK", "1"},
                            {"WORLD_SIZE", "2"},
                            {"LOCAL_RANK", "1"},
                            {"LOCAL_WORLD_SIZE", "2"},
                            {"MASTER_ADDR", "node0"},
                            {"MASTER_PORT", "29500"}};
// NOLINTEND(bugprone-throwing-static-initialization)

TEST(Launch, IsReadFromEveryLauncher) {
  EXPECT_EQ(launch_with({}), Launch());
  EXPECT_FALSE(launch_with({}).is_parallel());
  EXPECT_EQ(launch_with(mpirun), (Launch{5, 8, 1, 4, Launcher::open_mpi}));
  EXPECT_EQ(launch_with(mpiexec), (Launch{2, 4, 0, 2, Launcher::hydra}));
  EXPECT_EQ(launch_with(srun), (Launch{3, 4, 1, -1, Launcher::slurm}));
  EXPECT_EQ(launch_with(torchrun), (Launch{1, 2, 1, 2, Launcher::torchrun}));
  EXPECT_TRUE(launch_with(srun).is_parallel());
}

TEST(Launch, IsThatOfTheInnermostLauncher) {
  // A Slurm job of two machines with one task each, below which mpirun and torchrun start eight and two.
  const Variables job = {{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}, {"SLURM_STEP_ID", "0"}};
  EXPECT_EQ(launch_with(both(mpirun, job)).launcher, Launcher::open_mpi);
  EXPECT_EQ(launch_with(both(torchrun, job)).launcher, Launcher::torchrun);
  EXPECT_EQ(launch_with(both(mpiexec, job)).launcher, Launcher::hydra);
  // What srun sets for PMI says the same as its own.
  EXPECT_EQ(launch_with(both(srun, {{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}})).launcher, Launcher::slurm);
  // A script that sets torchrun's variables from mpirun's.
  EXPECT_EQ(launch_with(both(mpirun, {{"RANK", "5"}, {"WORLD_SIZE", "8"}, {"MASTER_ADDR", "a"}})).launcher,
            Launcher::open_mpi);
}

TEST(Launch, ABatchScriptIsNoRank) {
  Variables batch = {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}};
  EXPECT_EQ(launch_with(batch), Launch());
  batch["SLURM_STEP_ID"] = "4294967291";  // of the batch step
  EXPECT_EQ(launch_with(batch), Launch());
}

TEST(Launch, NamesOfOthersAreLeftAlone) {
  EXPECT_EQ(launch_with({{"RANK", "colonel"}}), Launch());
  EXPECT_EQ(launch_with({{"WORLD_SIZE", "big"}, {"MASTER_PORT", "1"}}), Launch());
}

TEST(Launch, ContradictionsAreRefusedByName) {
  const auto with = [](Variables variables, const char* name, const char* value) {
    variables[name] = value;
    return variables;
  };
  const auto without = [](Variables variables, const char* name) {
    variables.erase(name);
    return variables;
  };
  const std::string end = "; start all ranks with one launcher";
  EXPECT_EQ(refusal(with(mpirun, "OMPI_COMM_WORLD_SIZE", "5")),
            "the environment variables OMPI_COMM_WORLD_RANK=5 and OMPI_COMM_WORLD_SIZE=5 contradict each other" + end);
  EXPECT_EQ(refusal(with(mpirun, "PMIX_RANK", "4")),
            "the environment variables PMIX_RANK=4 and OMPI_COMM_WORLD_RANK=5 contradict each other" + end);
  EXPECT_EQ(
      refusal(with(mpirun, "OMPI_COMM_WORLD_LOCAL_SIZE", "9")),
      "the environment variables OMPI_COMM_WORLD_LOCAL_SIZE=9 and OMPI_COMM_WORLD_SIZE=8 contradict each other" + end);
  EXPECT_EQ(refusal(with(mpiexec, "MPI_LOCALRANKID", "2")),
            "the environment variables MPI_LOCALRANKID=2 and MPI_LOCALNRANKS=2 contradict each other" + end);
  EXPECT_EQ(refusal(without(mpirun, "OMPI_COMM_WORLD_SIZE")),
            "the environment has OMPI_COMM_WORLD_RANK but no OMPI_COMM_WORLD_SIZE" + end);
  EXPECT_EQ(refusal(without(torchrun, "RANK")), "the environment has WORLD_SIZE but no RANK" + end);
  EXPECT_EQ(refusal(without(srun, "SLURM_NTASKS")), "the environment has SLURM_PROCID but no SLURM_NTASKS" + end);
  EXPECT_EQ(refusal(both(mpirun, torchrun)),
            "the environment variables OMPI_COMM_WORLD_RANK=5 and RANK=1 contradict each other" + end);
  EXPECT_EQ(refusal(both(srun, {{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}})),
            "the environment variables PMI_RANK=2 and SLURM_PROCID=3 contradict each other" + end);
  EXPECT_EQ(refusal({{"PMIX_RANK", "1"}}),
            "the environment has PMIX_RANK=1 but nothing that says how many ranks there are; expected "
            "OMPI_COMM_WORLD_SIZE, PMI_SIZE or SLURM_NTASKS with SLURM_STEP_ID");
  for (const char* value : {"", "-1", "two", "3x", " 3", "99999999999"})
    EXPECT_NE(refusal(with(srun, "SLURM_PROCID", value)).find("the environment variable SLURM_PROCID is \""),
              std::string::npos)
        << value;
}

}  // namespace
}  // namespace lamella::comm::testing
