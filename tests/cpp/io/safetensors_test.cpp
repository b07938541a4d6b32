#include "io/containers/safetensors.h"

#include "../seed.h"
#include "checkpoint_files.h"

namespace lamella::test {
namespace {

io::TensorTable parse(const std::string& file) {
  return io::parse_safetensors_header(bytes_of(file), file.size(), "m.safetensors");
}

void expect_bad(const std::string& file, const std::vector<std::string>& parts,
                ErrorCode code = ErrorCode::invalid_checkpoint) {
  SCOPED_TRACE(file.substr(0, 120));
  expect_error(code, parts, [&] { parse(file); });
}

/// A file with the one tensor `t` that the description gives, and four bytes of data.
std::string one(const std::string& description) { return safetensors("{\"t\":" + description + "}", "1234"); }

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const std::string header = "{\"__metadata__\":{\"format\":\"pt\"}," + tensor_json("b", "F32", "[1]", 8, 12) + "," +
                             tensor_json("a", "BF16", "[2,2]", 0, 8) + "," + tensor_json("z", "I64", "[0,7]", 12, 12) +
                             "}   ";
  const io::TensorTable table = parse(safetensors(header, std::string(12, 'x')));
  ASSERT_EQ(table.tensors.size(), 3u);
  const io::TensorEntry* a = table.find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->type, io::StorageType::bf16);
  EXPECT_EQ(a->shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(a->offset, 8 + header.size());
  EXPECT_EQ(a->bytes, 8u);
  EXPECT_EQ(table.find("z")->bytes, 0u);
  EXPECT_EQ(table.find("y"), nullptr);
  EXPECT_EQ(std::get<std::string>(table.metadata.at("format").value), "pt");
}

TEST(Safetensors, A1_TruncatedFile) {
  std::string file = safetensors("{" + tensor_json("t", "F32", "[4]", 0, 16) + "}", std::string(16, 'x'));
  const std::string needed = std::to_string(file.size());
  file.pop_back();
  expect_bad(file, {"\"t\"", "needs at least " + needed, "has " + std::to_string(file.size()), "download incomplete?"});
  file.resize(20);
  expect_bad(file, {"header needs", "only 20 bytes", "download incomplete?"});
  file.resize(5);
  expect_bad(file, {"only 5 bytes", "download incomplete?"});
  expect_bad("", {"only 0 bytes", "download incomplete?"});
}

TEST(Safetensors, A1_TrailingBytes) {
  expect_bad(safetensors("{" + tensor_json("t", "F32", "[1]", 0, 4) + "}", "12345"), {"trailing bytes"});
  expect_bad(safetensors("{}", "1"), {"trailing bytes"});
}

TEST(Safetensors, A2_HeaderLength) {
  expect_bad(raw<std::uint64_t>(0) + "{}", {"length is 0"});
  expect_bad(raw<std::uint64_t>(100) + "{}", {"header needs 108 bytes", "only 10 bytes"});
  expect_bad(raw<std::uint64_t>(100'000'001) + "{}", {"100000001", "at most 100000000"});
  expect_bad(raw<std::uint64_t>(std::uint64_t{1} << 63) + "{}", {"9223372036854775808", "at most"});
  expect_bad(raw<std::uint64_t>(~std::uint64_t{0}) + "{}", {"at most"});
}

TEST(Safetensors, A2_GitLfsPointer) {
  expect_bad("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", {"git lfs pull"});
}

TEST(Safetensors, A3_HolesAndOverlaps) {
  const auto two = [](int begin, int end) {
    return safetensors(
        "{" + tensor_json("a", "F32", "[1]", 0, 4) + "," + tensor_json("b", "F32", "[1]", begin, end) + "}",
        "12345678");
  };
  EXPECT_NO_THROW(parse(two(4, 8)));
  expect_bad(two(0, 4), {"\"b\"", "data offset 0", "\"a\"", "ends at 4", "overlap"});
  expect_bad(two(2, 6), {"\"b\"", "data offset 2", "overlap"});
  expect_bad(two(6, 10), {"\"b\"", "data offset 6", "hole"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[1,5]})"), {"\"t\"", "data offset 1", "hole"});
}

TEST(Safetensors, A3_Offsets) {
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), {"\"t\"", "begin at 4", "end at 0"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[-4,0]})"),
             {"\"t\"", "data_offsets[0]", "unsigned integer"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4.0]})"),
             {"\"t\"", "data_offsets[1]", "unsigned integer"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4e0]})"), {"data_offsets[1]"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[-0,4]})"), {"data_offsets[0]"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,"4"]})"), {"data_offsets[1]"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,8]})"), {"\"t\"", "need 4 bytes", "give 8"});
  expect_bad(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"),
             {"\"t\"", "ends at data offset 8", "download incomplete?"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]})"),
             {"\"t\"", "give 3"});
}

TEST(Safetensors, A4_Dimensions) {
  expect_bad(one(R"({"dtype":"U8","shape":[281474976710657],"data_offsets":[0,4]})"),
             {"\"t\"", "at most 2^48", "[S5]"});
  expect_bad(one(R"({"dtype":"U8","shape":[0,4611686018427387904],"data_offsets":[0,0]})"), {"2^48", "[S5]"});
  expect_bad(one(R"({"dtype":"U8","shape":[0,281474976710656,281474976710656],"data_offsets":[0,0]})"),
             {"overflows", "[S5]"});
  expect_bad(one(R"({"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,4]})"), {"[J4]"});
  expect_bad(one(R"({"dtype":"F64","shape":[281474976710656,32767],"data_offsets":[0,4]})"), {"overflows 64 bits"});
  expect_bad(one(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})"), {"9 dimensions", "[S4]"});
  expect_bad(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), {"dimension 0", "unsigned integer"});
  expect_bad(one(R"({"dtype":"F32","shape":[null],"data_offsets":[0,4]})"), {"dimension 0"});
  EXPECT_NO_THROW(parse(one(R"({"dtype":"F32","shape":[],"data_offsets":[0,4]})")));
  EXPECT_NO_THROW(parse(one(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1],"data_offsets":[0,4]})")));
}

TEST(Safetensors, A5_UnsupportedTypes) {
  for (const std::string dtype :
       {"F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64", "f32", "Q4_0", ""})
    expect_bad(one("{\"dtype\":\"" + dtype + "\",\"shape\":[4],\"data_offsets\":[0,4]}"),
               {"\"t\"", "\"" + dtype + "\"", "[S8]"}, ErrorCode::unsupported_model);
  for (const std::string dtype : {"F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"})
    EXPECT_NO_THROW(parse(one("{\"dtype\":\"" + dtype + "\",\"shape\":[4],\"data_offsets\":[0,4]}")));
}

TEST(Safetensors, A6_HeaderText) {
  const std::string good = tensor_json("t", "F32", "[1]", 0, 4);
  expect_bad(safetensors(" {" + good + "}", "1234"), {"[S1]"});
  expect_bad(safetensors("[]"), {"[S1]"});
  expect_bad(safetensors("{" + good + "," + good + "}", "1234"), {"twice", "[J2]"});
  expect_bad(safetensors("{" + good + "}x", "1234"), {"after the end"});
  expect_bad(safetensors("{" + good + "}" + std::string(1, '\0'), "1234"), {"after the end"});
}

TEST(Safetensors, A6_Names) {
  const auto named = [](const std::string& name) {
    return safetensors("{" + tensor_json(name, "F32", "[1]", 0, 4) + "}", "1234");
  };
  expect_bad(named(""), {"0 bytes", "[S2]"});
  expect_bad(named("a\\u0000b"), {"NUL", "[S2]"});
  EXPECT_NO_THROW(parse(named(std::string(1024, 'n'))));
  expect_bad(named(std::string(1025, 'n')), {"1025 bytes", "[S2]"});
  try {
    parse(named(std::string(1 << 20, 'n')));
    ADD_FAILURE() << "a name of a MiB was accepted";
  } catch (const Error& error) {
    EXPECT_LT(std::string_view(error.what()).size(), 512u);  // P8: the name is not echoed whole
  }
}

TEST(Safetensors, A6_Descriptions) {
  expect_bad(one("[\"F32\",[1],[0,4]]"), {"\"t\"", "not an object", "[S3]"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})"), {"unknown key \"x\"", "[S3]"});
  expect_bad(one(R"({"dtype":"F32","shape":[1]})"), {"data_offsets", "[S3]"});
  expect_bad(one(R"({"shape":[1],"data_offsets":[0,4]})"), {"dtype", "[S3]"});
  expect_bad(one(R"({"dtype":"F32","data_offsets":[0,4]})"), {"shape", "[S3]"});
  expect_bad(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})"), {"two numbers", "[S3]"});
  expect_bad(one(R"({"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]})"), {"dtype", "[S3]"});
}

TEST(Safetensors, A6_Metadata) {
  expect_bad(safetensors(R"({"__metadata__":{"a":1}})"), {"\"a\"", "not a string", "[S6]"});
  expect_bad(safetensors(R"({"__metadata__":null})"), {"[S6]"});
  expect_bad(safetensors(R"({"__metadata__":{"a":"b","a":"c"}})"), {"[J2]"});
  std::string many = "{\"__metadata__\":{";
  for (int i = 0; i <= 4096; ++i) many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":\"\"";
  expect_bad(safetensors(many + "}}"), {"4097 entries", "[S6]"});
}

TEST(Safetensors, P3_AMillionTensors) {
  if (lamella::testing::sanitized) GTEST_SKIP() << "a minute and more where a sanitizer slows it down";
  const auto with = [](int count) {
    std::string header = "{";
    for (int i = 0; i < count; ++i) header += (i == 0 ? "" : ",") + tensor_json(std::to_string(i), "U8", "[0]", 0, 0);
    return safetensors(header + "}");
  };
  EXPECT_EQ(parse(with(1'000'000)).tensors.size(), 1'000'000u);
  expect_bad(with(1'000'001), {"1000001 tensors", "[S7]"});
}

TEST(Safetensors, ReadsAFile) {
  const TemporaryFolder folder;
  const auto path = folder.write("m.safetensors", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"));
  const io::TensorTable table = io::read_safetensors(path);
  const io::TensorEntry* entry = table.find("t");
  ASSERT_NE(entry, nullptr);
  std::string data(4, ' ');
  table.files.at(entry->file)->read(entry->offset, std::as_writable_bytes(std::span(data)));
  EXPECT_EQ(data, "1234");
}

}  // namespace
}  // namespace lamella::test
