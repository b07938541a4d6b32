// What crosses the border in place of exceptions.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "embed/border.h"
#include "lamella/engine.h"

namespace lamella::testing {
namespace {

static_assert(!std::is_copy_constructible_v<Engine> && std::is_nothrow_move_constructible_v<Engine>);
static_assert(!std::is_copy_constructible_v<Stream> && std::is_nothrow_move_assignable_v<Stream>);
static_assert(!std::is_copy_constructible_v<Subscription> && std::is_nothrow_move_assignable_v<Subscription>);

TEST(Result, HoldsAValueOrAnErrorThatValueThrows) {
  Result<std::vector<int>> good = std::vector{1, 2};
  EXPECT_TRUE(good && good.ok());
  good.value().push_back(3);
  const Result<std::vector<int>>& constant = good;
  EXPECT_EQ(constant.value(), (std::vector{1, 2, 3}));
  const Result<std::unique_ptr<int>> bad = Error(ErrorCode::io_error, "no such file");
  EXPECT_FALSE(bad || bad.ok());
  EXPECT_EQ(bad.error().code(), ErrorCode::io_error);
  EXPECT_THROW(static_cast<void>(bad.value()), Error);
}

TEST(Result, AListFromATemporaryMayBeWalked) {
  const auto list = [] { return Result<std::vector<std::string>>(std::vector<std::string>(3, std::string(100, 'x'))); };
  int seen = 0;
  for (const std::string& text : list().value()) seen += text == std::string(100, 'x') ? 1 : 0;
  EXPECT_EQ(seen, 3);
}

TEST(Result, OfNothingIsDoneOrAnError) {
  const Result<void> done;
  EXPECT_TRUE(done && done.ok());
  EXPECT_NO_THROW(done.value());
  const Result<void> bad = Error(ErrorCode::overloaded, "too much");
  EXPECT_FALSE(bad || bad.ok());
  EXPECT_STREQ(bad.error().what(), "too much");
  EXPECT_THROW(bad.value(), Error);
}

TEST(Border, LetsNoExceptionThrough) {
  EXPECT_EQ(guarded([] { return 7; }).value(), 7);
  EXPECT_TRUE(guarded([] {}).ok());
  const auto code_and_text = [](auto thrown) {
    // NOLINTNEXTLINE(bugprone-std-exception-baseclass): what callers may do
    const Result<void> result = guarded([&] { throw thrown; });
    return std::pair(result.error().code(), std::string(result.error().what()));
  };
  EXPECT_EQ(code_and_text(Error(ErrorCode::numeric, "NaN")), (std::pair(ErrorCode::numeric, std::string("NaN"))));
  EXPECT_EQ(code_and_text(std::bad_alloc()).first, ErrorCode::out_of_memory);
  EXPECT_EQ(code_and_text(std::logic_error("why")), (std::pair(ErrorCode::internal, std::string("unexpected: why"))));
  EXPECT_EQ(code_and_text(5).first, ErrorCode::internal);
}

}  // namespace
}  // namespace lamella::testing
