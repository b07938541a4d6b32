#include "io/path_rules.h"

#include "checkpoint_files.h"

namespace lamella::test {
namespace {

namespace fs = std::filesystem;

TEST(PathRules, A9_NamesAreOnePlainComponent) {
  const TemporaryFolder folder;
  folder.write("ok.safetensors", "x");
  folder.write("sub/x", "x");
  EXPECT_EQ(io::check_model_file(folder.path(), "ok.safetensors"), folder.path() / "ok.safetensors");
  using namespace std::string_literals;
  for (const std::string& name : {""s, "."s, ".."s, "../x"s, "sub/x"s, "/etc/passwd"s, "a\\b"s, "a\0b"s, "a\nb"s,
                                  "\x1b[31m"s, "sub/../ok.safetensors"s, std::string(256, 'a')})
    expect_error(ErrorCode::invalid_checkpoint, {"is not allowed"},
                 [&] { (void)io::find_model_file(folder.path(), name); });
}

TEST(PathRules, MissingFiles) {
  const TemporaryFolder folder;
  fs::create_symlink("nowhere", folder.path() / "dangling");
  EXPECT_EQ(io::find_model_file(folder.path(), "none"), std::nullopt);
  EXPECT_EQ(io::find_model_file(folder.path(), "dangling"), std::nullopt);
  expect_error(ErrorCode::invalid_checkpoint, {"no file \"none\""},
               [&] { (void)io::check_model_file(folder.path(), "none"); });
  expect_error(ErrorCode::io_error, {"errno 2"}, [&] { (void)io::check_model_file(folder.path() / "no-folder", "x"); });
}

TEST(PathRules, A10_LinksInsideTheFolder) {
  const TemporaryFolder folder;
  folder.write("sub/real", "x");
  fs::create_symlink("sub/real", folder.path() / "link");
  EXPECT_EQ(io::check_model_file(folder.path(), "link"), folder.path() / "sub/real");
}

TEST(PathRules, A10_LinksOutOfTheFolder) {
  const TemporaryFolder folder;
  folder.write("outside", "x");
  folder.write("model-evil/real", "x");  // shares the folder's name as a prefix, not as a component
  fs::create_directory(folder.path() / "model");
  fs::create_symlink("../outside", folder.path() / "model/up");
  fs::create_symlink("/etc/passwd", folder.path() / "model/absolute");
  fs::create_symlink("../model-evil/real", folder.path() / "model/prefix");
  fs::create_symlink("up", folder.path() / "model/twice");
  for (const char* name : {"up", "absolute", "prefix", "twice"})
    expect_error(ErrorCode::invalid_checkpoint, {"leads out of the model folder"},
                 [&] { (void)io::check_model_file(folder.path() / "model", name); });
}

TEST(PathRules, A10_HuggingFaceCache) {
  const TemporaryFolder cache;
  cache.write("models--org--m/blobs/abc", "x");
  cache.write("models--org--m/refs/main", "x");
  cache.write("models--org--other/blobs/def", "x");
  const fs::path snapshot = cache.path() / "models--org--m/snapshots/123";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/abc", snapshot / "model.safetensors");
  fs::create_symlink("../../refs/main", snapshot / "refs");
  fs::create_symlink("../../../models--org--other/blobs/def", snapshot / "other");
  fs::create_symlink("../../models--org--other/blobs/def", cache.path() / "models--org--m/blobs/hop");
  fs::create_symlink("../../blobs/hop", snapshot / "hop");
  EXPECT_EQ(io::check_model_file(snapshot, "model.safetensors"), cache.path() / "models--org--m/blobs/abc");
  for (const char* name : {"refs", "other", "hop"})
    expect_error(ErrorCode::invalid_checkpoint, {"leads out"}, [&] { (void)io::check_model_file(snapshot, name); });

  // The same layout without the cache's names is no cache.
  cache.write("plain/blobs/abc", "x");
  fs::create_directories(cache.path() / "plain/snapshots/123");
  fs::create_symlink("../../blobs/abc", cache.path() / "plain/snapshots/123/f");
  expect_error(ErrorCode::invalid_checkpoint, {"leads out"},
               [&] { (void)io::check_model_file(cache.path() / "plain/snapshots/123", "f"); });
}

TEST(PathRules, A10_TheFolderItselfMayBeALink) {
  const TemporaryFolder folder;
  folder.write("real/f", "x");
  fs::create_directory_symlink("real", folder.path() / "model");
  EXPECT_EQ(io::check_model_file(folder.path() / "model", "f"), folder.path() / "real/f");
}

TEST(PathRules, A13_LinkLoop) {
  const TemporaryFolder folder;
  fs::create_symlink("b", folder.path() / "a");
  fs::create_symlink("a", folder.path() / "b");
  expect_error(ErrorCode::io_error, {"errno 40"}, [&] { (void)io::check_model_file(folder.path(), "a"); });
}

TEST(PathRules, A10_LinkPutInTheWayAfterResolving) {
  const TemporaryFolder folder;
  folder.write("model/f", "x");
  folder.write("secret", "s");
  const fs::path resolved = io::check_model_file(folder.path() / "model", "f");
  fs::remove(resolved);
  fs::create_symlink("../secret", resolved);
  expect_error(ErrorCode::io_error, {"errno 40"}, [&] { (void)io::open_resolved(resolved); });
}

}  // namespace
}  // namespace lamella::test
