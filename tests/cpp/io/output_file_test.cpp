#include "io/output_file.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>

#include "checkpoint_files.h"

namespace lamella::test {
namespace {

using io::OutputFile;

TEST(OutputFile, WritesWhereItIsTold) {
  const TemporaryFolder folder;
  OutputFile file(folder.path() / "new");
  EXPECT_EQ(file.size(), 0U);
  file.reset(10);
  file.write(7, bytes_of("xyz"));
  file.write(2, bytes_of("ab"));
  file.sync();
  EXPECT_EQ(file.read_all(), std::string("\0\0ab\0\0\0xyz", 10));
  EXPECT_EQ(content(folder.path() / "new"), file.read_all());
  file.cut(3);
  EXPECT_EQ(file.read_all(), std::string("\0\0a", 3));
  file.write(5, bytes_of("q"));
  EXPECT_EQ(file.size(), 6U);
  file.reset(4);
  EXPECT_EQ(file.read_all(), std::string(4, '\0'));
}

TEST(OutputFile, RefusesWhatIsNoPlaceToWrite) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::filesystem::path& path, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::io_error, parts, [&] { const OutputFile file(path); });
  };
  refused(folder.path() / "absent" / "x", {"absent/x", "No such file"});
  refused(folder.path(), {"directory"});
  std::filesystem::create_symlink(folder.write("target", "precious"), folder.path() / "link");
  refused(folder.path() / "link", {"link", "symbolic links"});
  ASSERT_EQ(::mkfifo((folder.path() / "fifo").c_str(), 0600), 0);
  refused(folder.path() / "fifo", {"fifo", "not a regular file"});
  EXPECT_EQ(content(folder.path() / "target"), "precious");
}

TEST(OutputFile, IsLockedByOneAtATime) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "locked";
  auto first = std::make_unique<OutputFile>(path);
  EXPECT_TRUE(first->lock());
  OutputFile second(path);
  EXPECT_FALSE(second.lock());
  first.reset();
  EXPECT_TRUE(second.lock());
  EXPECT_TRUE(second.is_in_place());
  io::remove_file(path);
  EXPECT_FALSE(second.is_in_place());
  const OutputFile third(path);
  EXPECT_FALSE(second.is_in_place());
  EXPECT_TRUE(third.is_in_place());
}

TEST(OutputFile, IsPublishedInPlaceOfAnother) {
  const TemporaryFolder folder;
  const auto from = folder.write("from", "new"), to = folder.write("to", "old");
  io::publish_file(from, to);
  EXPECT_EQ(content(to), "new");
  EXPECT_FALSE(std::filesystem::exists(from));
  expect_error(ErrorCode::io_error, {"from", "cannot rename", "No such file"}, [&] { io::publish_file(from, to); });
  EXPECT_NO_THROW(io::remove_file(from));
  expect_error(ErrorCode::io_error, {"cannot remove"}, [&] { io::remove_file(folder.path()); });
}

/// Runs `write` in a process that may write files of 100 bytes; its exit code is 0 where that is refused properly.
template <typename Write>
int status_under_limit(const std::filesystem::path& path, Write write) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_DFL);
    const rlimit limit{.rlim_cur = 100, .rlim_max = 100};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
    try {
      OutputFile file(path);
      file.write(50, bytes_of("still fits"));
      write(file);
      ::_exit(3);
    } catch (const Error& error) {
      const std::string_view text = error.what();
      ::_exit(error.code() == ErrorCode::io_error && text.find("ulimit -f") != std::string_view::npos ? 0 : 4);
    }
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

TEST(OutputFile, ALimitOnFilesIsAnErrorNotASignal) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "limited";
  EXPECT_EQ(status_under_limit(path, [](OutputFile& file) { file.reset(101); }), 0);
  EXPECT_EQ(status_under_limit(path, [](OutputFile& file) { file.write(99, bytes_of("ab")); }), 0);
  EXPECT_EQ(status_under_limit(path, [](OutputFile& file) { file.write(100, bytes_of("a")); }), 0);
}

}  // namespace
}  // namespace lamella::test
