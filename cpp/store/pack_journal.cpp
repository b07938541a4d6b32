#include "store/pack_journal.h"

#include <charconv>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/checksum.h"

namespace lamella {
namespace {

// A segment's line has about 50 bytes, and is written again only where the segment was found damaged.
constexpr std::uint64_t most_segment_bytes = 128, most_other_bytes = 1024;

/// `text` with its checksum, as one line.
std::string sealed(std::string_view text) {
  return concat(text, ' ', hex(xxh64(std::as_bytes(std::span(text)))), '\n');
}

/// The words of a line (without its line feed) whose checksum is right, without the checksum; none of any other.
std::vector<std::string_view> unsealed(std::string_view line) {
  std::vector<std::string_view> words;
  const std::size_t cut = line.rfind(' ');
  if (cut == std::string_view::npos ||
      line.substr(cut + 1) != hex(xxh64(std::as_bytes(std::span(line.substr(0, cut))))))
    return words;
  for (std::size_t begin = 0; begin <= cut;) {
    const std::size_t end = line.find(' ', begin);
    words.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

template <typename Number>
bool read_number(std::string_view text, int base, Number& out) {
  const char *begin = text.data(), *end = begin + text.size();
  const auto [stop, error] = std::from_chars(begin, end, out, base);
  return error == std::errc() && stop == end;
}

}  // namespace

PackJournal::PackJournal(const std::filesystem::path& path, std::size_t segments) {
  // The holder before us may have removed the journal after we opened it: then what we hold is no longer the journal.
  do {
    file_ = std::make_unique<io::OutputFile>(path);
    if (!file_->lock())
      throw Error(ErrorCode::io_error,
                  concat(path.string(),
                         ": another process is packing into this folder; wait for it, end it, or choose "
                         "another folder"));
  } while (!file_->is_in_place());
  read(most_other_bytes + most_segment_bytes * segments);
}

void PackJournal::read(std::uint64_t most_bytes) {
  new_ = file_->size() == 0;
  const std::string text = file_->size() <= most_bytes ? file_->read_all() : std::string();
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', end_)) {
    if (!take(std::string_view(text).substr(end_, end - end_))) break;
    end_ = end + 1;
  }
  if (file_->size() > end_) file_->cut(end_);  // so that nothing stands behind the next line
}

bool PackJournal::take(std::string_view line) {
  const std::vector<std::string_view> words = unsealed(line);
  if (words.size() == 2 && words[0] == "pack" && end_ == 0) {
    identity_ = words[1];
    return true;
  }
  if (words.size() == 2 && words[0] == "whole" && end_ != 0) {
    digest_ = words[1];
    return true;
  }
  std::uint32_t index = 0;
  std::uint64_t checksum = 0;
  if (words.size() != 3 || words[0] != "segment" || end_ == 0 || !read_number(words[1], 10, index) ||
      !read_number(words[2], 16, checksum))
    return false;
  segments_[index] = checksum;
  return true;
}

void PackJournal::clear() {
  file_->cut(0);
  file_->sync();
  end_ = 0;
  identity_.clear();
  digest_.clear();
  segments_.clear();
}

void PackJournal::append(std::string_view text) {
  file_->write(end_, std::as_bytes(std::span(text)));
  file_->sync();
  end_ += text.size();
}

void PackJournal::begin(const std::string& identity) {
  append(sealed(concat("pack ", identity)));
  identity_ = identity;
}

void PackJournal::record(const std::map<std::uint32_t, std::uint64_t>& segments) {
  std::string lines;
  for (const auto& [index, checksum] : segments) lines += sealed(concat("segment ", index, ' ', hex(checksum)));
  append(lines);
  for (const auto& [index, checksum] : segments) segments_[index] = checksum;
}

void PackJournal::record_whole(const std::string& digest) {
  append(sealed(concat("whole ", digest)));
  digest_ = digest;
}

}  // namespace lamella
