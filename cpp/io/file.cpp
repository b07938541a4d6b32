#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "io/refuse.h"

namespace lamella::io {
namespace {

// O_NONBLOCK: opening a FIFO that nobody writes to must return, not hang. It changes nothing for regular files.
constexpr int open_flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

// openat2's argument, number and flag as the kernel defines them (5.6 and later); build hosts' headers may be older
// than that.
struct OpenHow {
  std::uint64_t flags, mode, resolve;
};
constexpr long openat2_number = 437;
constexpr std::uint64_t resolve_no_symlinks = 0x04;

int open_descriptor(const char* path, Links links) noexcept {
  if (links == Links::follow) return ::open(path, open_flags);
  const OpenHow how{.flags = open_flags, .mode = 0, .resolve = resolve_no_symlinks};
  const long opened = ::syscall(openat2_number, AT_FDCWD, path, &how, sizeof how);
  if (opened >= 0) return static_cast<int>(opened);
  // An older kernel, or a container's filter that does not know the call: then at least the last component is no link.
  if (errno == ENOSYS || errno == EPERM) return ::open(path, open_flags | O_NOFOLLOW);
  return -1;
}

std::int64_t nanoseconds(const struct timespec& time) noexcept { return time.tv_sec * 1'000'000'000LL + time.tv_nsec; }

[[noreturn]] void changed(const std::string& path, const std::string& how) {
  throw Error(ErrorCode::checkpoint_changed,
              path + ": " + how + " while the model was in use; load it again once the file is complete");
}

}  // namespace

File::File(const std::filesystem::path& path, Links links) {
  // Absolute, so that verify_unchanged still finds it after the host process changed its working folder.
  std::error_code no_working_folder;
  path_ = std::filesystem::absolute(path, no_working_folder).string();
  if (no_working_folder) path_ = path.string();
  descriptor_ = open_descriptor(path_.c_str(), links);
  if (descriptor_ < 0) {
    const int code = errno;
    // A socket cannot be opened at all; for the caller it is what a FIFO is.
    if (code == ENXIO) refuse(path_, "not a regular file; a checkpoint is a plain file or a folder of plain files");
    throw_io_error(path_, "cannot open", code);
  }
  struct stat status{};
  const int failed = ::fstat(descriptor_, &status) != 0 ? errno : 0;
  if (failed != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);  // the destructor does not run for a constructor that throws
    if (failed != 0) throw_io_error(path_, "cannot stat", failed);
    refuse(path_, S_ISDIR(status.st_mode)
                      ? "is a folder where a file is expected"
                      : "not a regular file; a checkpoint is a plain file or a folder of plain files");
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
  device_ = status.st_dev;
  inode_ = status.st_ino;
  modified_ns_ = nanoseconds(status.st_mtim);
  changed_ns_ = nanoseconds(status.st_ctim);
}

File::~File() { ::close(descriptor_); }

std::string File::state() const {
  return concat("inode ", inode_, ", ", size_, " bytes, modified ", modified_ns_, ", changed ", changed_ns_);
}

void File::read(std::uint64_t offset, std::span<std::byte> out) const {
  check(offset <= size_ && out.size() <= size_ - offset, path_, ": read of ", out.size(), " bytes at ", offset,
        " in a file of ", size_);
  std::size_t done = 0;
  while (done < out.size()) {
    // Linux reads at most 2 GiB less a page at once; 1 GiB steps keep clear of that.
    const std::size_t step = std::min<std::size_t>(out.size() - done, std::size_t{1} << 30);
    const ::ssize_t got = ::pread(descriptor_, out.data() + done, step, static_cast<::off_t>(offset + done));
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (got == 0) {
      changed(path_,
              concat("the file ended at byte ", offset + done, ", before its size at opening (", size_, " bytes),"));
    } else if (errno != EINTR) {
      throw_io_error(path_, concat("cannot read at byte ", offset + done), errno);
    }
  }
}

void File::verify_unchanged() const {
  struct stat now{};
  if (::fstat(descriptor_, &now) != 0) throw_io_error(path_, "cannot stat", errno);
  if (static_cast<std::uint64_t>(now.st_size) != size_)
    changed(path_, concat("size went from ", size_, " to ", now.st_size, " bytes"));
  // The open descriptor keeps the old file; the path tells whether another one took its place.
  struct stat named{};
  if (::stat(path_.c_str(), &named) != 0) {
    const int code = errno;
    if (code == ENOENT || code == ENOTDIR) changed(path_, concat("the file was removed (errno ", code, ")"));
    throw_io_error(path_, "cannot stat", code);  // which says nothing about the file
  }
  if (static_cast<std::uint64_t>(named.st_dev) != device_ || static_cast<std::uint64_t>(named.st_ino) != inode_)
    changed(path_, "another file took its place");
  // The change time too: a writer can set the modification time back, but not that one.
  if (nanoseconds(now.st_mtim) != modified_ns_ || nanoseconds(now.st_ctim) != changed_ns_)
    changed(path_, "the file was written to");
}

}  // namespace lamella::io
