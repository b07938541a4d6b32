#include <gtest/gtest.h>

#include <iomanip>  // std::quoted must not win over ours
#include <limits>

#include "base/check.h"

namespace lamella::testing {
namespace {

TEST(Check, NamesTheValuesOfABrokenInvariant) {
  EXPECT_NO_THROW(check(true, "fine"));
  try {
    check(false, "blocks ", 3, " of ", 2);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::internal);
    EXPECT_STREQ(error.what(), "broken invariant: blocks 3 of 2");
  }
}

TEST(Check, CheckedArithmeticRefusesToWrap) {
  EXPECT_EQ(checked_multiply<std::int64_t>(1 << 20, 1 << 20, "bytes"), std::int64_t{1} << 40);
  EXPECT_THROW(static_cast<void>(checked_multiply<std::int64_t>(std::int64_t{1} << 40, std::int64_t{1} << 40, "bytes")),
               Error);
  EXPECT_THROW(static_cast<void>(checked_add(std::numeric_limits<std::uint64_t>::max(), std::uint64_t{1}, "bytes")),
               Error);
}

TEST(Quoted, EscapesAndCutsUntrustedText) {
  EXPECT_EQ(quoted("a\n\xff"), "\"a\\x0a\\xff\"");
  EXPECT_LE(quoted(std::string(10000, '\n')).size(), 260U);
}

TEST(Result, HoldsAValueOrAnError) {
  const Result<int> good = 5;
  EXPECT_TRUE(good.ok());
  Result<int> bad = Error(ErrorCode::io_error, "gone");
  EXPECT_FALSE(bad);
  EXPECT_EQ(bad.error().code(), ErrorCode::io_error);
  EXPECT_THROW(static_cast<void>(bad.value()), Error);
}

}  // namespace
}  // namespace lamella::testing
