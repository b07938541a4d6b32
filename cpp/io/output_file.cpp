#include "io/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "io/refuse.h"

namespace lamella::io {
namespace {

/// Repeats a call that a signal interrupted; its result, and errno with it, otherwise.
template <typename Call>
auto uninterrupted(Call call) noexcept {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

[[noreturn]] void refuse_write(const std::string& path, std::string_view doing, int code) {
  const bool full = code == ENOSPC || code == EDQUOT;
  const bool forbidden = code == EACCES || code == EPERM || code == EROFS;
  throw_io_error(path, doing, code,
                 full        ? "; make room there, or choose another folder"
                 : forbidden ? "; choose a folder that this process may write to"
                             : "");
}

struct stat status_of(const std::string& path, int descriptor) {
  struct stat status{};
  if (::fstat(descriptor, &status) != 0) throw_io_error(path, "cannot stat", errno);
  return status;
}

/// A write beyond the limit would end the process by a signal, unless it ignores that.
void check_file_limit(const std::string& path, std::uint64_t bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < bytes)
    throw_io_error(path, concat("cannot make it ", bytes, " bytes long"), EFBIG,
                   concat("; this process may write files of at most ", limit.rlim_cur, " bytes: raise `ulimit -f`"));
}

std::string room_left(int descriptor) {
  struct statvfs room{};
  if (::fstatvfs(descriptor, &room) != 0) return "";
  return concat(", ", room.f_bavail * room.f_frsize, " bytes are free there");
}

}  // namespace

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path.string()) {
  constexpr mode_t readable_as_umask_says = 0666;
  // O_NONBLOCK: opening a FIFO must not wait for its other end; it changes nothing for regular files.
  descriptor_ = uninterrupted([&] {
    return ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, readable_as_umask_says);
  });
  if (descriptor_ < 0) refuse_write(path_, "cannot open for writing", errno);
  struct stat status{};
  const int failed = ::fstat(descriptor_, &status) != 0 ? errno : S_ISREG(status.st_mode) ? 0 : EINVAL;
  if (failed == 0) return;
  ::close(descriptor_);  // the destructor does not run for a constructor that throws
  throw_io_error(path_, "cannot write to what is not a regular file", failed);
}

OutputFile::~OutputFile() { ::close(descriptor_); }

std::uint64_t OutputFile::size() const { return static_cast<std::uint64_t>(status_of(path_, descriptor_).st_size); }

std::string OutputFile::read_all() const {
  std::string text(size(), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ::ssize_t got = uninterrupted(
        [&] { return ::pread(descriptor_, text.data() + done, text.size() - done, static_cast<::off_t>(done)); });
    if (got < 0) throw_io_error(path_, concat("cannot read at byte ", done), errno);
    if (got == 0) break;  // cut short since
    done += static_cast<std::size_t>(got);
  }
  text.resize(done);
  return text;
}

void OutputFile::reset(std::uint64_t bytes) {
  check_file_limit(path_, bytes);
  cut(0);
  const auto length = static_cast<::off_t>(bytes);
  if (uninterrupted([&] { return ::fallocate(descriptor_, 0, 0, length); }) == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS) {
    const int code = errno;
    refuse_write(path_, concat("cannot reserve ", bytes, " bytes", room_left(descriptor_)), code);
  }
  if (uninterrupted([&] { return ::ftruncate(descriptor_, length); }) != 0)
    refuse_write(path_, concat("cannot make it ", bytes, " bytes long"), errno);
}

void OutputFile::cut(std::uint64_t bytes) {
  if (uninterrupted([&] { return ::ftruncate(descriptor_, static_cast<::off_t>(bytes)); }) != 0)
    throw_io_error(path_, concat("cannot cut at byte ", bytes), errno);
}

void OutputFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  check_file_limit(path_, offset + bytes.size());
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB less a page at once; 1 GiB steps keep clear of that.
    const std::size_t step = std::min<std::size_t>(bytes.size(), std::size_t{1} << 30);
    const ::ssize_t put =
        uninterrupted([&] { return ::pwrite(descriptor_, bytes.data(), step, static_cast<::off_t>(offset)); });
    if (put <= 0) {
      const int code = put < 0 ? errno : ENOSPC;
      refuse_write(path_, concat("cannot write at byte ", offset, room_left(descriptor_)), code);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
}

void OutputFile::sync() {
  if (uninterrupted([&] { return ::fsync(descriptor_); }) != 0) refuse_write(path_, "cannot write to the drive", errno);
}

bool OutputFile::lock() {
  if (uninterrupted([&] { return ::flock(descriptor_, LOCK_EX | LOCK_NB); }) == 0) return true;
  if (errno == EWOULDBLOCK) return false;
  // Lustre and others may be mounted without locks: to work there is worth more than to notice a second process.
  if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK) return true;
  throw_io_error(path_, "cannot lock", errno);
}

bool OutputFile::is_in_place() const {
  const struct stat own = status_of(path_, descriptor_);
  struct stat named{};
  return ::lstat(path_.c_str(), &named) == 0 && named.st_dev == own.st_dev && named.st_ino == own.st_ino;
}

void publish_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0)
    refuse_write(from.string(), concat("cannot rename to ", to.string()), errno);
  sync_folder(to.parent_path());
}

void remove_file(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) refuse_write(path.string(), "cannot remove", errno);
}

void sync_folder(const std::filesystem::path& folder) {
  const std::string path = folder.empty() ? "." : folder.string();
  const int descriptor = uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (descriptor < 0) throw_io_error(path, "cannot open the folder", errno);
  const int failed = uninterrupted([&] { return ::fsync(descriptor); }) != 0 ? errno : 0;
  ::close(descriptor);
  // Some file systems know no such thing and say so.
  if (failed != 0 && failed != EINVAL && failed != EOPNOTSUPP)
    refuse_write(path, "cannot write the folder to the drive", failed);
}

}  // namespace lamella::io
