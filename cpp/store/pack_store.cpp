#include "store/pack_store.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.h"
#include "io/containers/store_verify.h"
#include "io/output_file.h"
#include "store/pack_identity.h"
#include "store/pack_journal.h"
#include "store/write_segments.h"

namespace lamella {
namespace {

namespace fs = std::filesystem;
using Checksums = std::map<std::uint32_t, std::uint64_t>;  // of segments, by their index

bool is_there(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::none)
    throw Error(ErrorCode::io_error, concat(path.string(), ": cannot stat: ", error.message()));
  return status.type() != fs::file_type::not_found;
}

/// Ends a thread's work because another's was ended from outside.
struct Stopped : std::exception {};

/// Bytes that are done, for whoever wants to know. Where that one throws, all other threads stop at their next bytes.
class Meter {
 public:
  Meter(std::uint64_t total, const std::function<void(std::uint64_t, std::uint64_t)>& report)
      : total_(total), report_(report) {}
  void add(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (stopped_) throw Stopped();
    done_ += bytes;
    stopped_ = true;  // unless the report returns
    if (report_) report_(done_, total_);
    stopped_ = false;
  }
  void set(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    done_ = bytes;
  }

 private:
  std::mutex mutex_;
  std::uint64_t done_ = 0;
  bool stopped_ = false;
  const std::uint64_t total_;
  const std::function<void(std::uint64_t, std::uint64_t)>& report_;
};

/// Counts what is read, and so looks at signals now and then.
class MeteredReader final : public io::Reader {
 public:
  explicit MeteredReader(Meter& meter) : meter_(meter) {}
  void read(const io::File& file, std::uint64_t offset, std::span<std::byte> out) override {
    file.read(offset, out);
    meter_.add(out.size());
  }

 private:
  Meter& meter_;
};

/// Notes finished segments in the journal, some at a time, once their bytes are on the drive.
class Recorder {
 public:
  Recorder(const io::StoreHeader& header, io::OutputFile& file, PackJournal& journal, std::uint64_t record_bytes)
      : header_(header), file_(file), journal_(journal), record_bytes_(record_bytes) {}

  void add(std::uint32_t segment, std::uint64_t xxh64) {
    {
      const std::lock_guard lock(waiting_mutex_);
      waiting_.emplace(segment, xxh64);
      waiting_bytes_ += header_.segments[segment].bytes;
      if (waiting_bytes_ < record_bytes_) return;
    }
    flush();
  }

  /// After a sync that failed nothing more is noted: the next one would not tell what this one lost.
  void flush() {
    const std::lock_guard one_at_a_time(flushing_mutex_);
    Checksums segments;
    {
      const std::lock_guard lock(waiting_mutex_);
      segments.swap(waiting_);
      waiting_bytes_ = 0;
    }
    if (segments.empty() || lost_) return;
    lost_ = true;
    file_.sync();
    lost_ = false;
    journal_.record(segments);
  }

 private:
  const io::StoreHeader& header_;
  io::OutputFile& file_;
  PackJournal& journal_;
  const std::uint64_t record_bytes_;
  std::mutex waiting_mutex_, flushing_mutex_;
  Checksums waiting_;
  std::uint64_t waiting_bytes_ = 0;
  bool lost_ = false;
};

/// A store on its way from "<file>.partial" to its name.
class Packing {
 public:
  Packing(const PackInput& input, const PackTarget& target, io::StoreHeader header)
      : input_(input),
        target_(target),
        header_(std::move(header)),
        identity_(pack_identity(header_, input.recipe, input.tensors)),
        meter_(header_.file_bytes, target.progress),
        journal_(lock_journal()) {}

  PackReport run(io::Reader& reader, ThreadTeam& team) {
    if (was_published()) {
      kept_ = header_.segments.size();
      kept_bytes_ = header_.file_bytes;
      remove_journal();
      return report();
    }
    io::OutputFile file = open_partial();
    if (journal_.identity() == identity_ && file.size() == header_.file_bytes) {
      keep_finished(team);
    } else {
      start_afresh(file);
    }
    try {
      write(file, reader, team);
      publish(file);
    } catch (const Error& error) {
      if (is_about_input(error.code())) discard(file);
      throw;
    }
    return report();
  }

 private:
  /// A segment's bytes with the padding that follows.
  [[nodiscard]] std::uint64_t room_of(std::size_t segment) const {
    const bool last = segment + 1 == header_.segments.size();
    return (last ? header_.file_bytes : header_.segments[segment + 1].offset) - header_.segments[segment].offset;
  }

  PackJournal lock_journal() {
    // Looked at before there is a journal, so that a refusal leaves nothing behind.
    if (!is_there(journal_path(target_.file))) refuse_existing();
    return {journal_path(target_.file), header_.segments.size()};
  }

  /// A journal that was made for nothing goes.
  io::OutputFile open_partial() {
    try {
      refuse_existing();
      return io::OutputFile(partial_path(target_.file));
    } catch (...) {
      if (journal_.is_new()) remove_journal();
      throw;
    }
  }

  void refuse_existing() const {
    if (!target_.replace && is_there(target_.file))
      throw Error(ErrorCode::io_error, concat(target_.file.string(),
                                              ": there is a packed store already; choose another folder, or say that "
                                              "it is to be replaced (--force)"));
  }

  /// Whether the last packing was cut short after the store had got its name, and before the journal was removed.
  [[nodiscard]] bool was_published() {
    if (journal_.identity() != identity_ || journal_.digest().empty() || is_there(partial_path(target_.file)) ||
        !is_there(target_.file))
      return false;
    try {
      header_.digest = io::read_store_header(io::File(target_.file)).digest;
    } catch (const Error&) {  // some other file
      return false;
    }
    return header_.digest == journal_.digest();
  }

  /// Keeps those segments that the journal names and that are in the file as it says.
  void keep_finished(ThreadTeam& team) {
    std::vector<std::uint32_t> named;
    for (const auto& [segment, xxh64] : journal_.segments()) {
      if (segment >= header_.segments.size()) continue;
      header_.segments[segment].xxh64 = xxh64;
      named.push_back(segment);
    }
    const io::File file(partial_path(target_.file), io::Links::refuse);
    MeteredReader reader(meter_);
    std::vector<char> sound(header_.segments.size(), 0);
    std::atomic<std::size_t> next{0};
    team.run([&](int) {
      for (std::size_t i = next++; i < named.size(); i = next++) {
        try {
          io::verify_segment(file, reader, header_, named[i]);
          sound[named[i]] = 1;
        } catch (const Stopped&) {
          return;
        } catch (const Error& error) {
          if (error.code() != ErrorCode::invalid_checkpoint) throw;  // else it is packed again
        }
      }
    });
    for (std::uint32_t i = 0; i < sound.size(); ++i) {
      if (sound[i] == 0) {
        unfinished_.push_back(i);
        continue;
      }
      ++kept_;
      kept_bytes_ += room_of(i);
    }
    meter_.set(kept_bytes_);
  }

  /// Whether the input must change before the packing can succeed: then there is nothing to go on with.
  static bool is_about_input(ErrorCode code) noexcept {
    return code == ErrorCode::invalid_checkpoint || code == ErrorCode::unsupported_model ||
           code == ErrorCode::checkpoint_changed;
  }

  /// Whether the names still are those of our files. Somebody may have removed them, and then another process may have
  /// begun to pack: the lock is on the journal, not on its name.
  [[nodiscard]] bool is_in_place(const io::OutputFile& file) const {
    return journal_.is_in_place() && file.is_in_place();
  }

  void discard(const io::OutputFile& file) const {
    if (!is_in_place(file)) return;
    io::remove_file(file.path());
    io::remove_file(journal_.path());
  }

  void start_afresh(io::OutputFile& file) {
    if (target_.notice && (!journal_.is_new() || file.size() > 0))
      target_.notice(concat(file.path(),
                            journal_.identity().empty()        ? ": an unfinished store without a sound journal"
                            : journal_.identity() != identity_ ? ": an unfinished store of other files or options"
                                                               : ": no longer the unfinished store that it was",
                            "; starting afresh"));
    try {
      journal_.clear();
      file.reset(header_.file_bytes);
      file.sync();
      journal_.begin(identity_);
      io::sync_folder(target_.file.parent_path());
    } catch (...) {  // a drive that is too small for this store may do for another one
      discard(file);
      throw;
    }
    for (std::uint32_t i = 0; i < header_.segments.size(); ++i) unfinished_.push_back(i);
  }

  void write(io::OutputFile& file, io::Reader& reader, ThreadTeam& team) {
    Recorder recorder(header_, file, journal_, target_.record_bytes);
    const SegmentEvents events{.written = [&](std::uint64_t bytes) { meter_.add(bytes); },
                               .finished =
                                   [&](std::uint32_t segment, std::uint64_t xxh64) {
                                     header_.segments[segment].xxh64 = xxh64;
                                     recorder.add(segment, xxh64);
                                   }};
    try {
      write_segments({header_, input_.recipe, input_.tensors, reader, file}, unfinished_, team, events);
    } catch (...) {
      try {
        recorder.flush();
      } catch (...) {  // NOLINT(bugprone-empty-catch): what ended the work is what the caller must see
      }
      throw;
    }
    recorder.flush();
  }

  /// The header says that all is there, and it goes to the drive after all else.
  void publish(io::OutputFile& file) {
    for (const std::shared_ptr<const io::File>& source : input_.tensors.files) source->verify_unchanged();
    header_.digest = io::store_digest(header_);
    const std::string head = io::encode_store_header(header_);
    file.write(0, std::as_bytes(std::span(head)));
    file.sync();
    meter_.add(head.size());
    journal_.record_whole(header_.digest);
    check_names(file);
    if (target_.before_publishing) target_.before_publishing();
    check_names(file);
    io::publish_file(file.path(), target_.file);
    remove_journal();
  }

  /// That the store may still get its name: much may have come to pass since this packing began.
  void check_names(const io::OutputFile& file) const {
    refuse_existing();
    if (!is_in_place(file))
      throw Error(ErrorCode::io_error, concat(file.path(),
                                              ": this file or its journal was removed or replaced while the store was "
                                              "being written; pack again"));
  }

  void remove_journal() {
    if (journal_.is_in_place()) io::remove_file(journal_.path());
    io::sync_folder(target_.file.parent_path());
  }

  [[nodiscard]] PackReport report() const {
    return {.digest = header_.digest,
            .file_bytes = header_.file_bytes,
            .segments = header_.segments.size(),
            .kept_segments = kept_,
            .kept_bytes = kept_bytes_};
  }

  const PackInput& input_;
  const PackTarget& target_;
  io::StoreHeader header_;
  const std::string identity_;
  Meter meter_;
  PackJournal journal_;
  std::vector<std::uint32_t> unfinished_;  // segments, ascending
  std::uint64_t kept_ = 0, kept_bytes_ = 0;
};

fs::path with_ending(fs::path path, std::string_view ending) { return path += ending; }

/// The same file by a path without links in it, which still leads there when the process changes its working folder.
fs::path resolved(const fs::path& file) {
  std::error_code error;
  const fs::path folder = fs::canonical(file.has_parent_path() ? file.parent_path() : fs::path("."), error);
  if (error) throw Error(ErrorCode::io_error, concat(file.string(), ": cannot resolve its folder: ", error.message()));
  return folder / file.filename();
}

}  // namespace

fs::path partial_path(const fs::path& store) { return with_ending(store, ".partial"); }
fs::path journal_path(const fs::path& store) { return with_ending(store, ".journal"); }

PackReport pack_store(const PackInput& input, const PackTarget& target, io::Reader& reader, ThreadTeam& team) {
  io::StoreHeader header = io::plan_store(input.model, input.dtype, input.source, input.formats);
  check_sources(header, input.recipe, input.tensors);
  PackTarget to = target;
  to.file = resolved(target.file);
  return Packing(input, to, std::move(header)).run(reader, team);
}

}  // namespace lamella
