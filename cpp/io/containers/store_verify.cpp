#include "io/containers/store_verify.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <span>
#include <vector>

#include "base/checksum.h"
#include "io/containers/store_layout.h"
#include "io/refuse.h"

namespace lamella::io {
namespace {

constexpr std::uint64_t step_bytes = 1 << 20;

std::string described(const StoreSegment& segment) {
  return concat("segment ", segment_name(segment), " (bytes ", segment.offset, " to ", segment.offset + segment.bytes,
                " of the file)");
}

struct Range {
  std::uint64_t begin = 0, end = 0;
};

/// What must be zero: the bytes of a segment that belong to no weight, counted from its start, up to the next page.
std::vector<Range> padding_of(const StoreHeader& header, std::size_t index, std::uint64_t padded) {
  const auto weights = std::equal_range(
      header.weights.begin(), header.weights.end(), StoreWeight{.segment = static_cast<std::uint32_t>(index)},
      [](const StoreWeight& a, const StoreWeight& b) { return a.segment < b.segment; });
  std::vector<Range> out;
  std::uint64_t end = 0;
  for (auto weight = weights.first; weight != weights.second; end = weight->offset + weight->bytes, ++weight)
    out.push_back({end, weight->offset});
  out.push_back({end, padded});
  return out;
}

/// Ends a thread's work because another's was ended from outside.
struct Stopped : std::exception {};

/// Bytes that somebody is writing look damaged: then the file is changed, not damaged.
[[noreturn]] void rethrow(const std::exception_ptr& failure, const File& file) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::invalid_checkpoint) file.verify_unchanged();
    throw;
  }
}

/// verify_segment, telling `report` how many bytes were read, step by step.
template <typename Report>
void verify_reporting(const File& file, Reader& reader, const StoreHeader& header, std::size_t index, Report report) {
  const StoreSegment& segment = header.segments.at(index);
  const std::uint64_t padded = (segment.bytes + store_page - 1) / store_page * store_page;
  const std::vector<Range> padding = padding_of(header, index, padded);
  std::vector<std::byte> buffer(std::min(padded, step_bytes));
  Xxh64 hash;
  for (std::uint64_t begin = 0; begin < padded; begin += buffer.size()) {
    const auto bytes = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), padded - begin));
    const std::uint64_t end = begin + bytes.size();
    reader.read(file, segment.offset + begin, bytes);
    report(bytes.size());
    hash.update(bytes.first(std::min(end, segment.bytes) - std::min(begin, segment.bytes)));
    for (const Range& zeros : padding) {
      const std::uint64_t from = std::max(begin, zeros.begin), to = std::min(end, zeros.end);
      if (from < to)
        check_segment_padding(header, index, bytes.subspan(from - begin, to - from), segment.offset + from,
                              file.path());
    }
  }
  check_segment_checksum(header, index, hash.digest(), file.path());
}

}  // namespace

void check_segment_checksum(const StoreHeader& header, std::size_t index, std::uint64_t found, std::string_view file) {
  const StoreSegment& segment = header.segments.at(index);
  if (found != segment.xxh64)
    refuse(file, described(segment), " is damaged: its XXH64 is ", hex(found), ", expected ", hex(segment.xxh64),
           copy_or_pack_again);
}

void check_segment_padding(const StoreHeader& header, std::size_t index, std::span<const std::byte> padding,
                           std::uint64_t offset, std::string_view file) {
  check_zeros(padding, offset, concat("of ", described(header.segments.at(index))), file);
}

void verify_segment(const File& file, Reader& reader, const StoreHeader& header, std::size_t index) {
  verify_reporting(file, reader, header, index, [](std::uint64_t) {});
}

void verify_store(const File& file, Reader& reader, const StoreHeader& header, ThreadTeam& team,
                  const std::function<void(std::uint64_t done, std::uint64_t total)>& progress) {
  std::atomic<std::size_t> next{0};
  std::mutex reporting, failing;
  std::uint64_t done = 0;
  bool stopped = false;
  std::size_t failed = header.segments.size();
  std::exception_ptr failure;
  const auto report = [&](std::uint64_t bytes) {
    if (!progress) return;
    const std::lock_guard lock(reporting);
    if (stopped) throw Stopped();
    stopped = true;  // unless the call returns
    progress(done += bytes, header.file_bytes - header.header_bytes);
    stopped = false;
  };
  team.run([&](int) {
    for (std::size_t i = next++; i < header.segments.size(); i = next++) {
      try {
        verify_reporting(file, reader, header, i, report);
      } catch (const Stopped&) {
        return;
      } catch (...) {
        // Segments are given out in order: all before this one are done or in work, none after it need be.
        next = header.segments.size();
        const std::lock_guard lock(failing);
        if (i < failed) failed = i, failure = std::current_exception();
      }
    }
  });
  if (failure) rethrow(failure, file);
  file.verify_unchanged();
}

}  // namespace lamella::io
