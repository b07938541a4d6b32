// Reading weights: the file under a checkpoint, and the reader interface through which all weight bytes come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace lamella::io {

/// What opening does with symbolic links. `refuse` is for a path that has already been resolved: a link that appears
/// in it afterwards was put there to lead elsewhere.
enum class Links : std::uint8_t { follow, refuse };

/// An open regular file, never mapped. Remembers device, inode, size and times at opening, so that a replaced,
/// truncated or rewritten file is noticed (`verify_unchanged`) and gives checkpoint_changed, not a signal or stale
/// bytes.
class File {
 public:
  /// Opens without blocking and refuses anything but a regular file (FIFO, device, folder): invalid_checkpoint. A
  /// missing or unreadable file: io_error with errno and path.
  explicit File(const std::filesystem::path& path, Links links = Links::follow);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  /// Inode, size, modification and change time at opening, in words: the same for as long as the file stays the same,
  /// also from one process to the next.
  [[nodiscard]] std::string state() const;

  /// Fills `out` from `offset` with pread. A file that ends before that: checkpoint_changed; EINTR and short reads are
  /// resumed; other failures: io_error with errno, path and offset. Safe from many threads at once.
  void read(std::uint64_t offset, std::span<std::byte> out) const;

  /// Throws checkpoint_changed when the path leads to another device or inode or to nothing, or size, modification or
  /// change time differ from those at opening (A11); io_error when the operating system does not tell.
  void verify_unchanged() const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::uint64_t device_ = 0, inode_ = 0;
  std::int64_t modified_ns_ = 0, changed_ns_ = 0;
};

/// Where weight bytes come from. `PreadReader` is the plain one; io_uring joins it here without its callers' notice.
class Reader {
 public:
  virtual ~Reader() = default;
  /// Fills `out` with bytes [offset, offset + out.size()) of `file`; errors as File::read. Safe from many threads at
  /// once.
  virtual void read(const File& file, std::uint64_t offset, std::span<std::byte> out) = 0;
};

class PreadReader final : public Reader {
 public:
  void read(const File& file, std::uint64_t offset, std::span<std::byte> out) override { file.read(offset, out); }
};

}  // namespace lamella::io
