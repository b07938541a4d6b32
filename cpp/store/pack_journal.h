// The journal beside a store that is being written: which of its segments are finished, so that a packing that was cut
// short goes on where it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "io/output_file.h"

namespace lamella {

/// A text file that only grows. Its first line names what is being packed (pack_identity.h), then comes a line for each
/// finished segment, and one when the file is whole:
///
///   pack <identity> <checksum> | segment <index> <XXH64 of its bytes> <checksum> | whole <digest> <checksum>
///
/// A line's checksum is the XXH64 of what stands before it; whatever follows a line without the right one counts as
/// never written. Whoever holds a PackJournal is the only one to work on the store. Errors: io_error, also where another
/// process holds it.
class PackJournal {
 public:
  /// Opens the journal, or creates an empty one, locks and reads it. One that is longer than any journal of so many
  /// segments gets counts as unsound from its first line on.
  PackJournal(const std::filesystem::path& path, std::size_t segments);

  [[nodiscard]] const std::string& path() const noexcept { return file_->path(); }
  /// Whether there was no journal, or an empty one.
  [[nodiscard]] bool is_new() const noexcept { return new_; }
  /// Whether the path still leads to this journal: if not, another process may be packing by now.
  [[nodiscard]] bool is_in_place() const { return file_->is_in_place(); }

  // What was found, and recorded since.
  [[nodiscard]] const std::string& identity() const noexcept { return identity_; }
  [[nodiscard]] const std::map<std::uint32_t, std::uint64_t>& segments() const noexcept { return segments_; }
  [[nodiscard]] const std::string& digest() const noexcept { return digest_; }  // empty: the file is not whole

  // Each returns once the journal is on the drive.
  /// Forgets all there was.
  void clear();
  void begin(const std::string& identity);
  /// The caller has made sure that the segments' bytes are on the drive.
  void record(const std::map<std::uint32_t, std::uint64_t>& segments);
  void record_whole(const std::string& digest);

 private:
  void read(std::uint64_t most_bytes);
  [[nodiscard]] bool take(std::string_view line);
  void append(std::string_view text);

  std::unique_ptr<io::OutputFile> file_;
  bool new_ = false;
  std::uint64_t end_ = 0;
  std::string identity_, digest_;
  std::map<std::uint32_t, std::uint64_t> segments_;
};

}  // namespace lamella
