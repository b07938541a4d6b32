// What a process says that begins MPI in a way that Lamella cannot use, or has ended it: one rank.
#include <gtest/gtest.h>
#include <mpi.h>

#include "comm/mpi_world.h"
#include "lamella/error.h"

namespace lamella::comm::testing {
namespace {

std::string refusal() {
  try {
    const MpiWorld world;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "";
}

TEST(MpiRefusals, NeedThreadsAndAnMpiThatHasNotEnded) {
  int threads = 0;
  ASSERT_EQ(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &threads), MPI_SUCCESS);
  ASSERT_EQ(threads, MPI_THREAD_SERIALIZED);
  EXPECT_NE(refusal().find("expected MPI_THREAD_MULTIPLE (3): use an MPI that has it"), std::string::npos);
  ASSERT_EQ(MPI_Finalize(), MPI_SUCCESS);
  EXPECT_NE(refusal().find("MPI has ended in this process and cannot begin again"), std::string::npos);
}

}  // namespace
}  // namespace lamella::comm::testing
