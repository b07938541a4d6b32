#include "store/load_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <mutex>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "base/checksum.h"
#include "io/containers/store_layout.h"
#include "io/containers/store_verify.h"
#include "store/load_meter.h"

namespace lamella {
namespace {

/// What is read at once: long enough for the disk, short enough to be hashed while it is in the cache.
constexpr std::uint64_t part_bytes = 1 << 20;

/// Bytes of a segment from `offset` on: padding before a weight, and a part of the weight in its place.
struct Part {
  std::uint64_t offset = 0;
  std::uint64_t padding = 0;  // below io::store_line
  std::span<std::byte> room;

  [[nodiscard]] std::uint64_t bytes() const noexcept { return padding + room.size(); }
};

/// One segment on its way into memory. A checksum runs through its segment from front to back, so that a segment is read
/// by all threads and hashed by one at a time: whoever has read the part that is due hashes it and all after it that
/// have come meanwhile, while the others read on.
class SegmentLoad {
 public:
  SegmentLoad(const PackedStore& store, std::size_t segment) : store_(store), segment_(segment) {}

  void add(const io::StoreWeight& weight, std::span<std::byte> room) {
    std::uint64_t padding = weight.offset - end_;
    for (std::uint64_t done = 0; done < room.size(); done += part_bytes, padding = 0)
      parts_.push_back({.offset = weight.offset + done - padding,
                        .padding = padding,
                        .room = room.subspan(done, std::min(part_bytes, room.size() - done))});
    end_ = weight.offset + room.size();
    here_.resize(parts_.size());
  }

  [[nodiscard]] const std::vector<Part>& parts() const noexcept { return parts_; }

  /// Reads a part, and hashes what is due. Any thread, each part once.
  void load(std::size_t index, io::Reader& reader) {
    const Part& part = parts_[index];
    const io::File& file = *store_.file;
    const std::uint64_t offset = store_.header.segments[segment_].offset + part.offset;
    if (part.padding > 0) {
      std::array<std::byte, io::store_line> found;
      const auto padding = std::span(found).first(part.padding);
      reader.read(file, offset, padding);
      io::check_segment_padding(store_.header, segment_, padding, offset, file.path());
    }
    reader.read(file, offset + part.padding, part.room);
    if (hash_from(index)) io::check_segment_checksum(store_.header, segment_, hash_.digest(), file.path());
  }

 private:
  /// True for the caller that hashed the last part.
  bool hash_from(std::size_t index) {
    constexpr std::array<std::byte, io::store_line> zeros{};
    std::unique_lock lock(mutex_);
    here_[index] = true;
    if (hashing_) return false;  // whoever hashes looks again before stopping
    hashing_ = true;
    while (next_ < parts_.size() && here_[next_]) {
      const Part& part = parts_[next_];
      lock.unlock();
      hash_.update(std::span(zeros).first(part.padding));
      hash_.update(part.room);
      lock.lock();
      ++next_;
    }
    hashing_ = false;
    return next_ == parts_.size();
  }

  const PackedStore& store_;
  std::size_t segment_;
  std::uint64_t end_ = 0;  // of the last weight added
  std::vector<Part> parts_;

  std::mutex mutex_;
  std::vector<bool> here_;  // read, by part
  std::size_t next_ = 0;  // the first part that is not hashed
  bool hashing_ = false;
  Xxh64 hash_;  // of whoever set hashing_
};

/// The store's segments, by number.
std::deque<SegmentLoad> segments_of(const PackedStore& store, const ResidentWeights& weights) {
  const io::StoreHeader& header = store.header;
  std::deque<SegmentLoad> loads;
  for (std::size_t i = 0; i < header.segments.size(); ++i) loads.emplace_back(store, i);
  const std::vector<io::PlacedWeight> placed = io::in_store_order(header.model);
  const auto declared = weights.declarations();
  check(declared.size() == placed.size(), "a store of ", placed.size(), " weights for ", declared.size());
  for (std::size_t i = 0; i < placed.size(); ++i) {
    const io::StoreWeight& weight = header.weights[i];
    const WeightDeclaration& wanted = declared[placed[i].index];
    const std::span<std::byte> room = weights.bytes(wanted.id);
    check(weight.id == wanted.id && weight.format == wanted.format && weight.bytes == room.size(), "the store's ",
          to_string(weight.id), " in ", to_string(weight.format), " for ", to_string(wanted.id), " in ",
          to_string(wanted.format));
    loads[weight.segment].add(weight, room);
  }
  return loads;
}

struct Task {
  SegmentLoad* segment;
  std::size_t part;
};

/// The longest segment first: its hashing, which cannot be shared, then runs beside the reading of the others.
std::vector<Task> tasks_of(std::deque<SegmentLoad>& loads, const io::StoreHeader& header) {
  std::vector<std::size_t> order(loads.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return header.segments[a].bytes > header.segments[b].bytes; });
  std::vector<Task> tasks;
  for (const std::size_t segment : order)
    for (std::size_t part = 0; part < loads[segment].parts().size(); ++part) tasks.push_back({&loads[segment], part});
  return tasks;
}

}  // namespace

void load_store(ResidentWeights& weights, const PackedStore& store, io::Reader& reader, ThreadTeam& team,
                const LoadProgress& progress) {
  std::deque<SegmentLoad> loads = segments_of(store, weights);
  const std::vector<Task> tasks = tasks_of(loads, store.header);
  std::uint64_t total = 0;
  for (const io::StoreSegment& segment : store.header.segments) total += segment.bytes;

  std::atomic<std::size_t> next{0};
  LoadMeter meter(total, progress);
  team.run([&](int) {
    for (std::size_t i = next.fetch_add(1); i < tasks.size() && !meter.ended(); i = next.fetch_add(1)) {
      const auto& [segment, part] = tasks[i];
      try {
        segment->load(part, reader);
        meter.add(segment->parts()[part].bytes());
      } catch (const Error& error) {
        meter.end();
        // Bytes that somebody is writing look damaged.
        if (error.code() == ErrorCode::invalid_checkpoint) store.file->verify_unchanged();
        throw;
      } catch (...) {
        meter.end();
        throw;
      }
    }
  });
  store.file->verify_unchanged();
}

}  // namespace lamella
