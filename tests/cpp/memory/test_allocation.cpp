#include <gtest/gtest.h>

#include <string>

#include "lamella/error.h"
#include "memory/allocation.h"

namespace lamella::testing {
namespace {

TEST(Allocation, D3_ARefusalSaysWhatWasAskedForAndWhatIsFree) {
  const std::size_t absurd = std::size_t{1} << 60;
  try {
    const Allocation memory(absurd, "the test");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    const std::string text = error.what();
    for (const std::string& part : {std::to_string(absurd) + " bytes for the test",
                                    std::string(" bytes of memory are unused"), std::string("the process")})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST(Allocation, IsZeroAndMoves) {
  Allocation memory(10'000, "the test");
  EXPECT_EQ(memory.data()[9'999], std::byte{0});
  const Allocation moved = std::move(memory);
  EXPECT_EQ(moved.size(), 10'000U);
}

}  // namespace
}  // namespace lamella::testing
