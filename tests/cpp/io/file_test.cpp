#include "io/file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "checkpoint_files.h"

namespace lamella::test {
namespace {

std::string read(const io::File& file, std::uint64_t offset, std::size_t count) {
  std::string out(count, ' ');
  io::PreadReader().read(file, offset, std::as_writable_bytes(std::span(out)));
  return out;
}

TEST(File, ReadsAtOffsets) {
  const TemporaryFolder folder;
  const io::File file(folder.write("f", "0123456789"));
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(read(file, 3, 4), "3456");
  EXPECT_EQ(read(file, 10, 0), "");
  expect_error(ErrorCode::internal, {"read of 2 bytes at 9"}, [&] { (void)read(file, 9, 2); });
  EXPECT_NO_THROW(file.verify_unchanged());
}

TEST(File, A13_SpecialFiles) {
  const TemporaryFolder folder;
  const auto fifo = folder.path() / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  expect_error(ErrorCode::invalid_checkpoint, {"fifo", "not a regular file"},
               [&] { const io::File file(fifo); });  // and does not hang
  expect_error(ErrorCode::invalid_checkpoint, {"not a regular file"}, [&] { const io::File file("/dev/zero"); });
  expect_error(ErrorCode::invalid_checkpoint, {"is a folder"}, [&] { const io::File file(folder.path()); });
}

TEST(File, A13_MissingUnreadableLoop) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::io_error, {"none", "errno 2"}, [&] { const io::File file(folder.path() / "none"); });
  std::filesystem::create_symlink("loop", folder.path() / "loop");
  expect_error(ErrorCode::io_error, {"loop", "errno 40"}, [&] { const io::File file(folder.path() / "loop"); });
  const auto hidden = folder.write("hidden", "x");
  std::filesystem::permissions(hidden, std::filesystem::perms::none);
  const bool root = ::geteuid() == 0;  // root may read everything, so it steps down for this one
  ASSERT_TRUE(!root || ::seteuid(65534) == 0);
  expect_error(ErrorCode::io_error, {"hidden", "errno 13"}, [&] { const io::File file(hidden); });
  ASSERT_TRUE(!root || ::seteuid(0) == 0);
}

TEST(File, A10_LinksAreRefusedOnResolvedPaths) {
  const TemporaryFolder folder;
  folder.write("real/f", "x");
  std::filesystem::create_directory_symlink(folder.path() / "real", folder.path() / "link");
  EXPECT_NO_THROW(io::File(folder.path() / "link" / "f"));
  EXPECT_NO_THROW(io::File(folder.path() / "real" / "f", io::Links::refuse));
  expect_error(ErrorCode::io_error, {"errno 40"},
               [&] { const io::File file(folder.path() / "link" / "f", io::Links::refuse); });
}

TEST(File, A11_TruncatedWhileReading) {
  const TemporaryFolder folder;
  const auto path = folder.write("f", "0123456789");
  const io::File file(path);
  std::filesystem::resize_file(path, 5);
  EXPECT_EQ(read(file, 0, 5), "01234");
  expect_error(ErrorCode::checkpoint_changed, {"ended at byte 5", "10 bytes"}, [&] { (void)read(file, 2, 6); });
  expect_error(ErrorCode::checkpoint_changed, {"10 to 5 bytes"}, [&] { file.verify_unchanged(); });
}

TEST(File, A11_ReplacedRewrittenRemoved) {
  const TemporaryFolder folder;
  const auto path = folder.write("f", "0123456789");
  {
    const io::File file(path);
    std::filesystem::rename(folder.write("g", "abcdefghij"), path);
    EXPECT_EQ(read(file, 0, 3), "012");  // the open descriptor still is the old file
    expect_error(ErrorCode::checkpoint_changed, {"another file"}, [&] { file.verify_unchanged(); });
  }
  {
    const io::File file(path);
    const auto written = std::filesystem::last_write_time(path);
    std::ofstream(path, std::ios::in) << "ABC";
    std::filesystem::last_write_time(path, written);  // a writer can set this back, but not the change time
    expect_error(ErrorCode::checkpoint_changed, {"written to"}, [&] { file.verify_unchanged(); });
  }
  const io::File file(path);
  std::filesystem::remove(path);
  expect_error(ErrorCode::checkpoint_changed, {"removed"}, [&] { file.verify_unchanged(); });
}

TEST(File, WhatCannotBeLookedAtIsNotCalledChanged) {
  const TemporaryFolder folder;
  const auto path = folder.write("closed/f", "x");
  const io::File file(path);
  std::filesystem::permissions(path.parent_path(), std::filesystem::perms::none);
  const bool root = ::geteuid() == 0;  // root may look at everything, so it steps down for this one
  ASSERT_TRUE(!root || ::seteuid(65534) == 0);
  expect_error(ErrorCode::io_error, {"closed/f", "cannot stat", "errno 13"}, [&] { file.verify_unchanged(); });
  ASSERT_TRUE(!root || ::seteuid(0) == 0);
  std::filesystem::permissions(path.parent_path(), std::filesystem::perms::owner_all);
  EXPECT_NO_THROW(file.verify_unchanged());
  std::filesystem::remove_all(path.parent_path());
  folder.write("closed", "a file in the folder's place");
  expect_error(ErrorCode::checkpoint_changed, {"removed"}, [&] { file.verify_unchanged(); });
}

TEST(File, RelativePathsSurviveAChangeOfFolder) {
  const TemporaryFolder folder;
  folder.write("f", "x");
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const io::File file("f");
  std::filesystem::current_path(before);
  EXPECT_NO_THROW(file.verify_unchanged());
}

}  // namespace
}  // namespace lamella::test
