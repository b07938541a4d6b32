// The collectives of bench_collectives, of ranks that are processes. Built with -DLAMELLA_MPI=ON.
//   mpirun -n RANKS bench_collectives_mpi [rounds]
#include <cstdio>

#include "bench_arguments.h"
#include "collective_cases.h"
#include "comm/mpi_world.h"

int main(int argc, char** argv) try {
  using namespace lamella;
  const bench::Arguments arguments{argc, argv};
  const std::int64_t rounds = arguments.number(1, 15);
  if (rounds < 1) throw Error(ErrorCode::invalid_argument, "at least one round");
  comm::MpiWorld world;
  const auto all = world.all();
  const std::vector<bench::Case> list = bench::cases(world.size());
  const auto microseconds = bench::time_rounds(*all, list, rounds);
  if (world.rank() == 0) bench::print_rounds(world.size(), list, microseconds);
} catch (const lamella::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
