// Writing files that others will rely on: every refusal of the operating system is an error, and nothing counts as
// written before sync() has returned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace lamella::io {

/// A regular file open for writing. All errors are io_error with path, what was tried and errno; also that a file would
/// become longer than the process may write (ulimit -f), of which the operating system would tell by a signal.
class OutputFile {
 public:
  /// Opens the file, or creates it where there is none; a symbolic link in its place is refused.
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::uint64_t size() const;
  [[nodiscard]] std::string read_all() const;

  /// Empties the file and makes it `bytes` zeros long, with room for all of them taken at once where the file system can
  /// do that: a full drive or a quota is found now, not after hours.
  void reset(std::uint64_t bytes);
  /// Cuts off everything from byte `bytes` on.
  void cut(std::uint64_t bytes);
  /// Writes all of `bytes` at `offset`. Safe from many threads at once.
  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  /// Returns once everything written is on the drive. After an error nothing is known of what was written before: the
  /// operating system reports such a loss once.
  void sync();

  /// Whether this process is now the only one that holds the file locked; the lock ends with the object, or with the
  /// process however it ends. Always true on file systems that have no locks.
  [[nodiscard]] bool lock();
  /// Whether the path still leads to this file.
  [[nodiscard]] bool is_in_place() const;

 private:
  std::string path_;
  int descriptor_ = -1;
};

/// Gives the file `from` the name `to` in the same folder, in place of a file that has it, and returns once that is on
/// the drive. At any moment, whatever happens, `to` is the old file or the new one, whole.
void publish_file(const std::filesystem::path& from, const std::filesystem::path& to);

/// Removes a file; there may be none.
void remove_file(const std::filesystem::path& path);

/// Returns once the folder's entries are on the drive.
void sync_folder(const std::filesystem::path& folder);

}  // namespace lamella::io
