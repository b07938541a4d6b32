#include "io/containers/json.h"

#include "checkpoint_files.h"

namespace lamella::test {
namespace {

using io::json::Document;
using io::json::Kind;
using io::json::Value;

void expect_bad(std::string_view text, const std::string& offset, const std::string& reason) {
  SCOPED_TRACE(std::string(text.substr(0, 60)));
  expect_error(ErrorCode::invalid_checkpoint, {"x.json: JSON error at byte " + offset + ":", reason},
               [&] { Document(text, "x.json"); });
}

TEST(Json, ReadsEveryKind) {
  constexpr std::string_view text =
      R"( {"a": [null, true, false, -3, 18446744073709551615, 1.5e1], "b": {}, "c": "x"} )";
  const Document document(text, "x.json");
  std::vector<Value> values;
  document.root().members([&](Value key, Value value) {
    if (key.equals("a")) value.each([&](Value element) { values.push_back(element); });
  });
  ASSERT_EQ(values.size(), 6u);
  EXPECT_TRUE(values[0].is(Kind::null));
  EXPECT_TRUE(values[1].boolean());
  EXPECT_FALSE(values[2].boolean());
  EXPECT_EQ(std::get<std::int64_t>(values[3].number()), -3);
  EXPECT_EQ(values[4].digits(), 18446744073709551615u);
  EXPECT_EQ(std::get<double>(values[5].number()), 15.0);
  EXPECT_EQ(values[5].digits(), std::nullopt);
  EXPECT_EQ(document.root().size(), 3u);
}

TEST(Json, DecodesEscapes) {
  const Document document(R"(["\"\\\/\b\f\n\r\t\u00e9\u20ac\ud83d\ude00"])", "x.json");
  document.root().each(
      [](Value value) { EXPECT_EQ(value.string(), "\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"); });
}

TEST(Json, B5_InvalidUtf8IsRefused) {
  for (const std::string_view bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                                     "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe2\x82", "\xff"})
    expect_bad("[\"" + std::string(bad) + "\"]", "2", "invalid UTF-8");
}

TEST(Json, B5_WhatIsNotJson) {
  expect_bad("", "0", "expected a value");
  expect_bad("[1,]", "3", "expected a value");
  expect_bad("[1 2]", "3", "expected ','");
  expect_bad("{\"a\" 1}", "5", "expected ':'");
  expect_bad("{a:1}", "1", "expected a key");
  expect_bad("{\"a\":1,}", "7", "expected a key");
  expect_bad("[NaN]", "1", "expected a value");
  expect_bad("[Infinity]", "1", "expected a value");
  expect_bad("[nul]", "1", "expected a value");
  expect_bad("[01]", "2", "needless 0");
  expect_bad("[1.]", "3", "expected a digit");
  expect_bad("[.5]", "1", "expected a value");
  expect_bad("[+1]", "1", "expected a value");
  expect_bad("[1e]", "3", "expected a digit");
  expect_bad("[-]", "2", "expected a digit");
  expect_bad("\"a", "2", "ends inside a string");
  expect_bad("\"\\x\"", "1", "unknown escape");
  expect_bad("\"\\u12g4\"", "1", "hexadecimal");
  expect_bad("\"\n\"", "1", "control character");
  expect_bad("{} {}", "3", "after the end");
  expect_bad("\xef\xbb\xbf{}", "0", "expected a value");
  expect_bad(std::string_view("{}\0", 3), "2", "after the end");
  expect_bad("[/*x*/1]", "1", "expected a value");
}

TEST(Json, A6_RuleJ1_Depth) {
  EXPECT_NO_THROW(Document(std::string(64, '[') + std::string(64, ']'), "x.json"));
  expect_bad(std::string(65, '[') + std::string(65, ']'), "64", "[J1]");
  expect_bad(std::string(1'000'000, '['), "64", "[J1]");
}

TEST(Json, A6_RuleJ2_DuplicateKeys) {
  expect_bad(R"({"a":1,"a":2})", "7", "\"a\" occurs twice [J2]");
  expect_bad(R"({"a":1,"\u0061":2})", "7", "[J2]");
  expect_bad(R"([{"b":{"x":1,"x":1}}])", "13", "[J2]");
  expect_bad(R"({"a":1,"b":2,"c":3,"d":4,"e":5,"\u0063":6})", "31", "\"c\" occurs twice [J2]");
  EXPECT_NO_THROW(Document(R"({"a":{"a":1},"b":{"a":1}})", "x.json"));
}

TEST(Json, A6_RuleJ3_HalfSurrogates) {
  expect_bad(R"(["\ud800"])", "2", "[J3]");
  expect_bad(R"(["\udc00"])", "2", "[J3]");
  expect_bad(R"(["\ud800\ud800"])", "2", "[J3]");
  expect_bad(R"(["\ud800x"])", "2", "[J3]");
}

TEST(Json, A6_RuleJ4_NumberRange) {
  expect_bad("[18446744073709551616]", "1", "[J4]");
  expect_bad("[-9223372036854775809]", "1", "[J4]");
  expect_bad("[1e999]", "1", "[J4]");
  const Document document("[-9223372036854775808]", "x.json");
  document.root().each(
      [](Value value) { EXPECT_EQ(std::get<std::int64_t>(value.number()), std::numeric_limits<std::int64_t>::min()); });
}

}  // namespace
}  // namespace lamella::test
