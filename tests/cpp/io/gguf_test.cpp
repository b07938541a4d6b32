#include "io/containers/gguf.h"

#include "checkpoint_files.h"

namespace lamella::test {
namespace {

constexpr std::uint32_t f32 = 0, q4_1 = 3, q6_k = 14;

io::TensorTable parse(const std::string& file) {
  auto parsed = io::parse_gguf(bytes_of(file), file.size(), "m.gguf");
  return std::get<io::TensorTable>(std::move(parsed));
}

void expect_bad(const std::string& file, const std::vector<std::string>& parts,
                ErrorCode code = ErrorCode::invalid_checkpoint) {
  SCOPED_TRACE(file.substr(0, 80));
  expect_error(code, parts, [&] { parse(file); });
}

std::string number_array(std::uint32_t type, std::uint64_t count, std::string_view bytes) {
  return raw(type) + raw(count) + std::string(bytes);
}

TEST(Gguf, ReadsTensorsOutermostFirst) {
  for (const std::uint32_t version : {2u, 3u}) {
    const std::string head = gguf({}, {gguf_tensor("w", {64, 3}, q4_1, 0), gguf_tensor("b", {5}, f32, 128)}, version);
    const io::TensorTable table = parse(head + std::string(128 + 32, 'x'));
    const io::TensorEntry *w = table.find("w"), *b = table.find("b");
    ASSERT_TRUE(w != nullptr && b != nullptr);
    EXPECT_EQ(w->shape, (std::vector<std::int64_t>{3, 64}));
    EXPECT_EQ(w->bytes, 3u * 2 * 20);
    EXPECT_EQ(w->offset, head.size());
    EXPECT_EQ(b->offset, head.size() + 128);
    EXPECT_EQ(b->type, io::StorageType::f32);
  }
}

TEST(Gguf, ReadsEveryMetadataType) {
  const std::vector<std::string> pairs{
      gguf_pair("u8", 0, raw<std::uint8_t>(200)),
      gguf_pair("i8", 1, raw<std::int8_t>(-5)),
      gguf_pair("u16", 2, raw<std::uint16_t>(60000)),
      gguf_pair("i16", 3, raw<std::int16_t>(-300)),
      gguf_pair("u32", 4, raw<std::uint32_t>(4000000000u)),
      gguf_pair("i32", 5, raw<std::int32_t>(-70000)),
      gguf_pair("f32", 6, raw(1.5f)),
      gguf_pair("yes", 7, raw<std::uint8_t>(1)),
      gguf_pair("text", 8, gguf_string("h\xc3\xa9")),
      gguf_pair("u64", 10, raw(~std::uint64_t{0})),
      gguf_pair("i64", 11, raw<std::int64_t>(-1)),
      gguf_pair("f64", 12, raw(2.5)),
      gguf_pair("ids", 9, number_array(5, 2, raw<std::int32_t>(7) + raw<std::int32_t>(-8))),
      gguf_pair("words", 9, raw<std::uint32_t>(8) + raw<std::uint64_t>(2) + gguf_string("x") + gguf_string("")),
      gguf_pair("nested", 9, raw<std::uint32_t>(9) + raw<std::uint64_t>(1) + number_array(7, 1, "\1")),
  };
  const auto metadata = parse(gguf(pairs, {})).metadata;
  EXPECT_EQ(std::get<std::uint64_t>(metadata.at("u8").value), 200u);
  EXPECT_EQ(std::get<std::int64_t>(metadata.at("i8").value), -5);
  EXPECT_EQ(std::get<std::uint64_t>(metadata.at("u16").value), 60000u);
  EXPECT_EQ(std::get<std::int64_t>(metadata.at("i16").value), -300);
  EXPECT_EQ(std::get<std::uint64_t>(metadata.at("u32").value), 4000000000u);
  EXPECT_EQ(std::get<std::int64_t>(metadata.at("i32").value), -70000);
  EXPECT_EQ(std::get<double>(metadata.at("f32").value), 1.5);
  EXPECT_TRUE(std::get<bool>(metadata.at("yes").value));
  EXPECT_EQ(std::get<std::string>(metadata.at("text").value), "h\xc3\xa9");
  EXPECT_EQ(std::get<std::uint64_t>(metadata.at("u64").value), ~std::uint64_t{0});
  EXPECT_EQ(std::get<std::int64_t>(metadata.at("i64").value), -1);
  EXPECT_EQ(std::get<double>(metadata.at("f64").value), 2.5);
  const auto& ids = std::get<io::MetadataNumbers>(metadata.at("ids").value);
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(std::get<std::int64_t>(io::number_at(ids, 1).value), -8);
  EXPECT_EQ(std::get<std::string>(std::get<io::MetadataArray>(metadata.at("words").value).at(0).value), "x");
  const auto& nested = std::get<io::MetadataArray>(metadata.at("nested").value).at(0);
  EXPECT_TRUE(std::get<bool>(io::number_at(std::get<io::MetadataNumbers>(nested.value), 0).value));
}

TEST(Gguf, AsksForMoreUntilTheHeaderIsThere) {
  const std::string file =
      gguf({gguf_pair("text", 8, gguf_string(std::string(100, 'x')))}, {gguf_tensor("b", {5}, f32, 0)}) +
      std::string(20, 'd');
  for (std::size_t length = 0; length < file.size(); ++length) {
    const auto parsed = io::parse_gguf(bytes_of(file).first(length), file.size(), "m.gguf");
    if (const auto* more = std::get_if<io::NeedMore>(&parsed)) {
      EXPECT_GT(more->bytes, length);
      EXPECT_LE(more->bytes, file.size());
    } else {
      EXPECT_GE(length, file.size() - 20 - 31);
    }
  }
}

TEST(Gguf, A1_TruncatedFile) {
  const std::string file =
      gguf({gguf_pair("text", 8, gguf_string("x"))}, {gguf_tensor("b", {5}, f32, 0)}) + std::string(20, 'd');
  for (std::size_t length = 4; length < file.size(); ++length)
    expect_bad(file.substr(0, length), {"m.gguf", "download incomplete?"});
  expect_bad(file.substr(0, file.size() - 1),
             {"\"b\"", "ends at byte " + std::to_string(file.size()), "has " + std::to_string(file.size() - 1)});
}

TEST(Gguf, A1_TrailingBytes) {
  const std::string head = gguf({}, {gguf_tensor("b", {5}, f32, 0)});
  EXPECT_NO_THROW(parse(head + std::string(20, 'd')));
  EXPECT_NO_THROW(parse(head + std::string(32, 'd')));
  expect_bad(head + std::string(33, 'd'), {"trailing bytes"});
}

TEST(Gguf, A2_WhatIsNotGguf) {
  expect_bad("GGML" + std::string(60, '\0'), {"not a GGUF file"});
  expect_bad("version https://git-lfs.github.com/spec/v1\n", {"git lfs pull"});
  expect_bad(gguf({}, {}, 1), {"version 1"}, ErrorCode::unsupported_model);
  expect_bad(gguf({}, {}, 4), {"version 4"}, ErrorCode::unsupported_model);
  expect_bad(gguf({}, {}, 0x03000000), {"big-endian"}, ErrorCode::unsupported_model);
  expect_bad(gguf({gguf_pair("split.count", 2, raw<std::uint16_t>(2))}, {}), {"split", "--merge"},
             ErrorCode::unsupported_model);
}

TEST(Gguf, A2_CountsAndLengthsBeyondTheFile) {
  const std::string start = "GGUF" + raw<std::uint32_t>(3);
  expect_bad(start + raw(~std::uint64_t{0}) + raw<std::uint64_t>(0), {"tensor count", "18446744073709551615"});
  expect_bad(start + raw<std::uint64_t>(0) + raw(~std::uint64_t{0}), {"metadata count"});
  expect_bad(start + raw<std::uint64_t>(0) + raw<std::uint64_t>(1) + raw(~std::uint64_t{0}) + std::string(64, 'k'),
             {"metadata key"});
  expect_bad(gguf({gguf_pair("a", 9, number_array(4, std::uint64_t{1} << 62, ""))}, {}), {"array's length"});
  expect_bad(gguf({gguf_pair("a", 9, number_array(8, 1000, ""))}, {}), {"array's length"});
  expect_bad(gguf({gguf_pair("a", 8, raw(std::uint64_t{1} << 63))}, {}), {"metadata value"});
}

TEST(Gguf, P3_HeaderBeyondTheLimitIsNotRead) {
  // Declared lengths that a file of 2^40 bytes could hold: refused, not allocated.
  const std::string head = "GGUF" + raw<std::uint32_t>(3) + raw<std::uint64_t>(0) + raw<std::uint64_t>(1) +
                           gguf_pair("a", 8, raw(std::uint64_t{1} << 35));
  expect_error(ErrorCode::invalid_checkpoint, {"100000000"},
               [&] { (void)io::parse_gguf(bytes_of(head), std::uint64_t{1} << 40, "m.gguf"); });
}

TEST(Gguf, A3_HolesOverlapsAndAlignment) {
  const auto two = [](std::uint64_t offset) {
    return gguf({}, {gguf_tensor("a", {8}, f32, 0), gguf_tensor("b", {8}, f32, offset)}) + std::string(64, 'd');
  };
  EXPECT_NO_THROW(parse(two(32)));
  expect_bad(two(0), {"\"b\"", "data offset 0", "leaves off at 32", "overlap"});
  expect_bad(two(64), {"\"b\"", "data offset 64", "hole"});
  expect_bad(two(40), {"\"b\"", "data offset 40", "not a multiple of the alignment 32"});
  expect_bad(two(~std::uint64_t{31}), {"\"b\"", "hole"});
}

TEST(Gguf, A4_Dimensions) {
  const auto with = [](const std::vector<std::uint64_t>& dims, std::uint32_t type) {
    return gguf({}, {gguf_tensor("t", dims, type, 0)}) + std::string(64, 'd');
  };
  expect_bad(with({(std::uint64_t{1} << 48) + 1}, f32), {"\"t\"", "at most 2^48"});
  expect_bad(with({0, std::uint64_t{1} << 62}, f32), {"at most 2^48"});
  expect_bad(with({std::uint64_t{1} << 48, std::uint64_t{1} << 48}, f32), {"overflows"});
  expect_bad(with({0, std::uint64_t{1} << 48, std::uint64_t{1} << 48}, f32), {"overflows"});
  expect_bad(with({std::uint64_t{1} << 48, 32767}, 28), {"\"t\"", "overflows"});
  expect_bad(with(std::vector<std::uint64_t>(9, 1), f32), {"9 dimensions"});
  expect_bad(with({16}, q4_1), {"\"t\"", "rows of 16 elements", "Q4_1 blocks of 32"});
  expect_bad(with({128}, q6_k), {"Q6_K blocks of 256"});
  expect_bad(with({}, q4_1), {"rows of 1 elements"});
}

TEST(Gguf, A5_UnsupportedTypes) {
  const auto with = [](std::uint32_t type) {
    return gguf({}, {gguf_tensor("blk.0.w", {256}, type, 0)}) + std::string(2048, 'd');
  };
  expect_bad(with(15), {"\"blk.0.w\"", "Q8_K", "supported are F32, F16, ", "IQ2_XXS"}, ErrorCode::unsupported_model);
  expect_bad(with(9), {"Q8_1"}, ErrorCode::unsupported_model);
  expect_bad(with(41), {"Q1_0"}, ErrorCode::unsupported_model);
  expect_bad(with(4), {"4 (unknown)"}, ErrorCode::unsupported_model);
  expect_bad(with(1000), {"1000 (unknown)"}, ErrorCode::unsupported_model);
}

TEST(Gguf, A6_KeysAndNames) {
  const std::string pair = gguf_pair("k", 0, "x");
  expect_bad(gguf({pair, pair}, {}), {"\"k\"", "occurs twice"});
  expect_bad(gguf({gguf_pair("", 0, "x"), gguf_pair("pad", 8, gguf_string("padding"))}, {}), {"metadata key"});
  expect_bad(gguf({gguf_pair("\xff", 0, "x")}, {}), {"metadata key"});
  expect_bad(gguf({gguf_pair("flag", 7, "\2")}, {}), {"boolean", "is 2"});
  expect_bad(gguf({gguf_pair("k", 13, "x")}, {}), {"unknown type 13"});
  const std::string b = gguf_tensor("b", {0}, f32, 0);
  expect_bad(gguf({}, {b, b}), {"\"b\"", "described twice"});
  expect_bad(gguf({}, {gguf_tensor("", {0}, f32, 0), gguf_tensor("bbbbbbbb", {0}, f32, 0)}), {"0 bytes"});
  expect_bad(gguf({}, {gguf_tensor(std::string(1025, 'n'), {0}, f32, 0)}), {"1025 bytes"});
  expect_bad(gguf({}, {gguf_tensor(std::string("n\0n", 3), {0}, f32, 0)}), {"NUL"});
  expect_bad(gguf({}, {gguf_tensor("\xff", {0}, f32, 0)}), {"\"\\xff\"", "UTF-8"});
}

TEST(Gguf, A6_DeepNesting) {
  std::string value;
  for (int i = 0; i < 70; ++i) value += raw<std::uint32_t>(9) + raw<std::uint64_t>(1);
  expect_bad(gguf({gguf_pair("deep", 9, value + number_array(0, 0, ""))}, {}), {"nest deeper than 64"});
}

TEST(Gguf, Alignment) {
  for (const std::uint32_t good : {32u, 64u, 4096u})
    EXPECT_NO_THROW(parse(gguf({gguf_pair("general.alignment", 4, raw(good))}, {})));
  for (const std::uint32_t bad : {0u, 3u, 48u, 1u << 21})
    expect_bad(gguf({gguf_pair("general.alignment", 4, raw(bad))}, {}), {"power of two"});
  expect_bad(gguf({gguf_pair("general.alignment", 8, gguf_string("32"))}, {}), {"another type"});
}

TEST(Gguf, ReadsAFileWithALongHeader) {
  const TemporaryFolder folder;  // 3 MB of metadata: read_gguf begins with 1 MiB
  const std::string head =
      gguf({gguf_pair("text", 8, gguf_string(std::string(3'000'000, 'x')))}, {gguf_tensor("b", {2}, f32, 0)});
  const io::TensorTable table = io::read_gguf(folder.write("m.gguf", head + "12345678"));
  EXPECT_EQ(table.find("b")->offset, head.size());
}

}  // namespace
}  // namespace lamella::test
