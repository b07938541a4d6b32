#include "io/containers/open_checkpoint.h"

#include <sys/stat.h>

#include "checkpoint_files.h"

namespace lamella::test {
namespace {

std::string small_safetensors(const std::string& name) {
  return safetensors("{" + tensor_json(name, "F32", "[1]", 0, 4) + "}", "1234");
}

TEST(OpenCheckpoint, FolderWithOneFile) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", small_safetensors("t"));
  folder.write("model.safetensors.index.json", "not looked at, as in transformers");
  folder.write("pytorch_model.bin", "not looked at");
  EXPECT_NE(io::open_checkpoint(folder.path()).find("t"), nullptr);
}

TEST(OpenCheckpoint, FilesByTheirFirstBytes) {
  const TemporaryFolder folder;
  EXPECT_NE(io::open_checkpoint(folder.write("blob1", small_safetensors("t"))).find("t"), nullptr);
  EXPECT_TRUE(io::open_checkpoint(folder.write("blob2", gguf({}, {}))).tensors.empty());
  expect_error(ErrorCode::invalid_checkpoint, {"neither a safetensors nor a GGUF file"},
               [&] { (void)io::open_checkpoint(folder.write("x", "hello, world")); });
  expect_error(ErrorCode::invalid_checkpoint, {"git lfs pull"}, [&] {
    (void)io::open_checkpoint(folder.write("m.gguf", "version https://git-lfs.github.com/spec/v1"));
  });
}

TEST(OpenCheckpoint, A13_EmptyMissingSpecial) {
  const TemporaryFolder folder;
  for (const char* name : {"m.gguf", "m.safetensors", "m"})
    expect_error(ErrorCode::invalid_checkpoint, {name, "0 bytes"},
                 [&] { (void)io::open_checkpoint(folder.write(name, "")); });
  expect_error(ErrorCode::io_error, {"errno 2"}, [&] { (void)io::open_checkpoint(folder.path() / "none"); });
  ASSERT_EQ(::mkfifo((folder.path() / "model.safetensors").c_str(), 0600), 0);
  expect_error(ErrorCode::invalid_checkpoint, {"not a regular file"},
               [&] { (void)io::open_checkpoint(folder.path()); });
}

TEST(OpenCheckpoint, A14_PickleIsRefusedWithTheCommandThatConvertsIt) {
  for (const char* name : {"pytorch_model.bin", "model.pt", "consolidated.00.pth", "x.ckpt"}) {
    const TemporaryFolder folder;
    folder.write(name, "\x80\x02 never opened");
    expect_error(ErrorCode::unsupported_model,
                 {name, "python -c", "from_pretrained('" + folder.path().string() + "')", "safe_serialization=True"},
                 [&] { (void)io::open_checkpoint(folder.path()); });
    expect_error(ErrorCode::unsupported_model, {name, "python -c"},
                 [&] { (void)io::open_checkpoint(folder.path() / name); });
  }
}

TEST(OpenCheckpoint, A14_ThePathInTheCommandCannotRunAnything) {
  const TemporaryFolder folder;
  folder.write("a'); import os; $(reboot)/pytorch_model.bin", "x");
  expect_error(ErrorCode::unsupported_model, {"from_pretrained('MODEL_FOLDER')"},
               [&] { (void)io::open_checkpoint(folder.path() / "a'); import os; $(reboot)"); });
}

TEST(OpenCheckpoint, FoldersWithoutAModelSayWhatIsThere) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::invalid_checkpoint, {"neither model.safetensors nor", "right folder"},
               [&] { (void)io::open_checkpoint(folder.path()); });
  folder.write("model-00001-of-00002.safetensors", "x");
  expect_error(ErrorCode::invalid_checkpoint, {"model-00001-of-00002.safetensors", "index file lost"},
               [&] { (void)io::open_checkpoint(folder.path()); });
  folder.write("m.gguf", "x");
  expect_error(ErrorCode::invalid_checkpoint, {"give its path", "m.gguf"},
               [&] { (void)io::open_checkpoint(folder.path()); });
}

}  // namespace
}  // namespace lamella::test
