#include "io/containers/safetensors_index.h"

#include "checkpoint_files.h"
#include "io/containers/open_checkpoint.h"

namespace lamella::test {
namespace {

constexpr const char* first = "model-00001-of-00002.safetensors";
constexpr const char* second = "model-00002-of-00002.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";

std::string shard(const std::vector<std::string>& tensors) {
  std::string header = "{";
  std::uint64_t at = 0;
  for (const std::string& name : tensors) {
    header += (at == 0 ? "" : ",") + tensor_json(name, "F32", "[1]", at, at + 4);
    at += 4;
  }
  return safetensors(header + "}", std::string(at, 'x'));
}

/// Two shards with tensors a, b and c, and the index that the test wants to be right or wrong.
class SafetensorsIndexTest : public ::testing::Test {
 protected:
  SafetensorsIndexTest() {
    folder_.write(first, shard({"a", "b"}));
    folder_.write(second, shard({"c"}));
  }
  static std::string index(const std::string& metadata = R"({"total_size":12})") {
    return "{\"metadata\":" + metadata + ",\"weight_map\":{\"a\":\"" + first + "\",\"b\":\"" + first + "\",\"c\":\"" +
           second + "\"}}";
  }
  void expect_bad(const std::string& text, const std::vector<std::string>& parts) {
    folder_.write(index_name, text);
    expect_error(ErrorCode::invalid_checkpoint, parts, [&] { (void)io::open_checkpoint(folder_.path()); });
  }
  static std::string mapping(const std::string& entries) { return "{\"weight_map\":{" + entries + "}}"; }

  TemporaryFolder folder_;
};

TEST_F(SafetensorsIndexTest, MergesShards) {
  folder_.write(index_name, index());
  const io::TensorTable table = io::open_checkpoint(folder_.path());
  ASSERT_EQ(table.files.size(), 2u);
  ASSERT_EQ(table.tensors.size(), 3u);
  EXPECT_EQ(table.tensors[1].name, "b");
  EXPECT_EQ(table.files[table.find("c")->file]->path(), folder_.path() / second);
  EXPECT_NO_THROW((void)io::open_checkpoint(folder_.path() / index_name));
}

TEST_F(SafetensorsIndexTest, A9_UnsafeShardNames) {
  for (const std::string name : {"../x", "/etc/passwd", "", ".", "..", "sub/x"})
    expect_bad(mapping("\"a\":\"" + name + "\""), {"\"" + name + "\"", "is not allowed"});
}

TEST_F(SafetensorsIndexTest, A9_MissingShardsAreListedTogether) {
  expect_bad(mapping("\"a\":\"x1\",\"b\":\"x2\",\"c\":\"" + std::string(second) + "\""),
             {"2 of 3 shards", "\"x1\", \"x2\"", "download incomplete?"});
  std::string many;
  for (int i = 10; i < 40; ++i)
    many += (i == 10 ? "\"t" : ",\"t") + std::to_string(i) + "\":\"s" + std::to_string(i) + "\"";
  expect_bad(mapping(many), {"30 of 30", "\"s19\" and 20 more"});
}

TEST_F(SafetensorsIndexTest, A9_ShardIsAFolder) {
  folder_.write("shard/x", "x");
  expect_bad(mapping("\"a\":\"shard\""), {"is a folder"});
}

TEST_F(SafetensorsIndexTest, A9_TensorInTwoShards) {
  folder_.write(second, shard({"c", "a"}));
  expect_bad(index(), {"\"a\"", second, "lists it in", first});
}

TEST_F(SafetensorsIndexTest, A9_ListedButNotThere) {
  folder_.write(first, shard({"a"}));
  expect_bad(index(), {"1 tensors are listed", "b (" + std::string(first)});
}

TEST_F(SafetensorsIndexTest, A9_ThereButNotListed) {
  folder_.write(second, shard({"c", "d"}));
  expect_bad(index(), {"\"d\"", "does not list it"});
}

TEST_F(SafetensorsIndexTest, A9_TotalSize) {
  folder_.write(index_name, index("{\"total_size\":12.0}"));
  EXPECT_NO_THROW((void)io::open_checkpoint(folder_.path()));
  folder_.write(index_name, index("{}"));
  EXPECT_NO_THROW((void)io::open_checkpoint(folder_.path()));
  expect_bad(index("{\"total_size\":13}"), {"total_size is 13", "have 12"});
  for (const std::string size : {"-1", "\"12\"", "null", "12.5", "1e300"})
    expect_bad(index("{\"total_size\":" + size + "}"), {"total_size at byte", "not a number of bytes"});
}

TEST_F(SafetensorsIndexTest, A9_WhatIsNoIndex) {
  expect_bad("", {"0 bytes"});
  expect_bad("[]", {"not a JSON object"});
  expect_bad("{}", {"no object weight_map"});
  expect_bad("{\"weight_map\":[]}", {"no object weight_map"});
  expect_bad("{\"weight_map\":{}}", {"lists no tensors"});
  expect_bad(mapping("\"a\":1"), {"\"a\"", "not a file name"});
  expect_bad(mapping("\"a\":\"x\",\"a\":\"x\""), {"[J2]"});
  expect_bad(mapping("\"\":\"x\""), {"0 bytes"});
  expect_bad("version https://git-lfs.github.com/spec/v1\n", {"git lfs pull"});
}

TEST_F(SafetensorsIndexTest, P3_IndexAbove64MiB) {
  folder_.write(index_name, "{}");
  std::filesystem::resize_file(folder_.path() / index_name, (64u << 20) + 1);
  expect_error(ErrorCode::invalid_checkpoint, {"67108865 bytes", "at most 67108864"},
               [&] { (void)io::open_checkpoint(folder_.path()); });
}

TEST_F(SafetensorsIndexTest, A10_ShardLinkLeadsOut) {
  std::filesystem::remove(folder_.path() / second);
  std::filesystem::create_symlink("/etc/passwd", folder_.path() / second);
  expect_bad(index(), {"leads out of the model folder"});
}

TEST_F(SafetensorsIndexTest, A1_TruncatedShardNamesTheShard) {
  std::string cut = shard({"c"});
  cut.pop_back();
  folder_.write(second, cut);
  expect_bad(index(), {second, "download incomplete?"});
}

}  // namespace
}  // namespace lamella::test
