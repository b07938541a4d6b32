// lamella/c.h: used from C, and its promises about versions.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>

#include "c_client.h"
#include "embed/c_error.h"
#include "lamella/c.h"
#include "stores.h"

namespace lamella::testing {
namespace {

TEST(CInterface, AProgramInCFindsWhatTheHeaderSays) {
  Embedded model;
  SCOPED_TRACE(::testing::Message() << "seed " << model.seed());
  const Request request = model.brief(40);
  const std::vector<std::int32_t> expected = generate(*model.core(), request);
  EXPECT_STREQ(use_c_interface(model.path().c_str(), request.prompt.data(), request.prompt.size(), expected.data(),
                               expected.size()),
               nullptr);
}

TEST(CInterface, EveryErrorCodeHasANumberOfItsOwnWithItsName) {
  int codes = 0;
  for (int i = 0; i <= std::numeric_limits<std::uint8_t>::max(); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    if (code != ErrorCode::internal && to_string(code) == to_string(ErrorCode::internal)) continue;  // no code of ours
    EXPECT_EQ(to_string(code), lamella_code_name(c_code(code)));
    ++codes;
  }
  EXPECT_EQ(codes, LAMELLA_RANK_FAILED);
}

/// The options of a later version, which begin like ours.
struct LaterOptions {
  lamella_engine_options known;
  std::array<std::int64_t, 2> unknown;
};

TEST(CInterface, OptionsOfAnEarlierAndOfALaterVersionAreUnderstood) {
  const Embedded model;
  lamella_engine* engine = nullptr;
  const auto open = [&](const lamella_engine_options* options) {
    const lamella_code code = lamella_engine_open(model.path().c_str(), options, &engine);
    lamella_engine_free(engine);
    return code;
  };
  LaterOptions later{};
  std::memset(&later, 0xff, sizeof later);
  lamella_engine_options_init(&later.known, sizeof later);
  EXPECT_EQ(later.known.struct_size, sizeof later);
  EXPECT_EQ(later.unknown, (std::array<std::int64_t, 2>{}));
  EXPECT_EQ(open(&later.known), LAMELLA_OK) << lamella_last_error();
  later.unknown[1] = 1;
  EXPECT_EQ(open(&later.known), LAMELLA_INVALID_ARGUMENT);
  EXPECT_NE(std::strstr(lamella_last_error(), "does not know"), nullptr) << lamella_last_error();

  lamella_engine_options earlier;
  std::memset(&earlier, 0xff, sizeof earlier);  // what an earlier caller has no field for is not its to write
  constexpr std::size_t size = offsetof(lamella_engine_options, max_num_batched_tokens);
  lamella_engine_options_init(&earlier, size);
  EXPECT_EQ(earlier.max_num_seqs, 32);
  EXPECT_EQ(earlier.max_num_batched_tokens, -1);
  EXPECT_EQ(open(&earlier), LAMELLA_OK) << lamella_last_error();
}

TEST(CInterface, AMessageBelongsToItsThread) {
  EXPECT_EQ(lamella_engine_close(nullptr), LAMELLA_INVALID_ARGUMENT);
  const std::string here = lamella_last_error();
  std::thread other([] { EXPECT_STREQ(lamella_last_error(), ""); });
  other.join();
  EXPECT_EQ(here, lamella_last_error());
}

}  // namespace
}  // namespace lamella::testing
