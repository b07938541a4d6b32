// A rank of a job in which one ends all of a sudden, or stands still: run by test_mpi_kill under mpirun.
//   mpi_victim FOLDER RANK SIGNAL MICROSECONDS DEADLINE_MS
// All call drawn collectives until that signal comes to RANK, so long after the start; with negative MICROSECONDS it
// comes before MPI begins. The others write what they are told to FOLDER/rank-N and to standard error, and exit with 5
// once all have done so.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "../drawn_calls.h"
#include "comm/launch.h"
#include "comm/mpi_world.h"
#include "lamella/error.h"
#include "mpi_main.h"

int main(int argc, char** argv) {
  using namespace lamella;
  using namespace lamella::comm;
  if (argc != 6) return 2;
  const std::string folder = argv[1];
  const auto number = [&](int at) { return std::strtoll(argv[at], nullptr, 10); };
  const auto victim = static_cast<int>(number(2)), signal = static_cast<int>(number(3));
  const std::chrono::microseconds after(number(4));
  const std::chrono::milliseconds deadline(number(5));
  const auto file_of = [&](int rank) { return folder + "/rank-" + std::to_string(rank); };
  int ranks = 0;
  try {
    if (after.count() < 0 && launch_of_process().rank == victim) static_cast<void>(std::raise(signal));
    MpiWorld world({.deadline = deadline, .init_timeout = 3 * deadline});
    ranks = world.size();
    const auto all = world.all();
    comm::testing::Random random(comm::testing::common_seed(*all));
    const comm::testing::Calls calls(random, world.size(), 40);
    try {
      all->barrier();
      std::thread([=, rank = world.rank()] {
        if (rank != victim) return;
        std::this_thread::sleep_for(after);
        static_cast<void>(std::raise(signal));
      }).detach();
      for (;;) comm::testing::run_calls(*all, calls);
    } catch (const Error& error) {
      const std::string text = std::string(to_string(error.code())) + " " + error.what() + "\n";
      std::fputs(text.c_str(), stderr);
      std::ofstream(file_of(world.rank()) + ".new") << text;
      std::filesystem::rename(file_of(world.rank()) + ".new", file_of(world.rank()));
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  // The first exit ends the whole job.
  const auto all_have_written = [&] {
    for (int rank = 0; rank < ranks; ++rank)
      if (rank != victim && !std::filesystem::exists(file_of(rank))) return false;
    return true;
  };
  for (int i = 0; i < 1000 && !all_have_written(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return 5;
}
