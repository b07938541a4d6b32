#include "store/write_segments.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "base/checksum.h"
#include "base/scratch.h"
#include "store/pieces.h"

namespace lamella {
namespace {

/// Lets the pieces of a list pass in order, whichever thread has which. Pieces are handed out in order, so the one whose
/// turn it is never waits.
class Turns {
 public:
  /// Returns when all pieces before `index` have passed: true; or when one of them never will: false.
  bool wait(std::size_t index) {
    std::unique_lock lock(mutex_);
    passed_.wait(lock, [&] { return failed_ || next_ == index; });
    return !failed_;
  }
  void pass() {
    const std::lock_guard lock(mutex_);
    ++next_;
    passed_.notify_all();
  }
  void fail() {
    const std::lock_guard lock(mutex_);
    failed_ = true;
    passed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable passed_;
  std::size_t next_ = 0;
  bool failed_ = false;
};

/// The weights of some of a store's segments, and the pieces that they are cut into.
class Cut {
 public:
  Cut(const SegmentRoute& route, std::span<const std::uint32_t> segments)
      : header_(route.header), declared_(declare(segments)), pieces_(declared_, route.recipe, route.tensors) {}

  [[nodiscard]] const PieceList& pieces() const noexcept { return pieces_; }

  /// A piece's bytes in its segment, and where the zeros behind them end.
  struct Place {
    std::uint32_t segment;
    std::uint64_t begin, end, padded_end;
  };
  [[nodiscard]] Place place(const Piece& piece) const {
    const std::size_t index = indices_[piece.weight];
    const io::StoreWeight& weight = header_.weights[index];
    const std::uint64_t begin = weight.offset + piece.offset, end = begin + piece.bytes;
    return {weight.segment, begin, end, end == weight.offset + weight.bytes ? room_end(index) : end};
  }

 private:
  std::vector<WeightDeclaration> declare(std::span<const std::uint32_t> segments) {
    std::vector<WeightDeclaration> declared;
    for (std::size_t i = 0; i < header_.weights.size(); ++i) {
      const io::StoreWeight& weight = header_.weights[i];
      if (!std::ranges::binary_search(segments, weight.segment)) continue;
      declared.push_back({.id = weight.id,
                          .rows = weight.rows,
                          .columns = weight.columns,
                          .segment = header_.segments[weight.segment].segment,
                          .format = weight.format});
      indices_.push_back(i);
    }
    return declared;
  }

  /// Where the next weight begins, or the segment's last page ends.
  [[nodiscard]] std::uint64_t room_end(std::size_t index) const {
    const std::uint32_t segment = header_.weights[index].segment;
    if (index + 1 == header_.weights.size()) return header_.file_bytes - header_.segments[segment].offset;
    const io::StoreWeight& next = header_.weights[index + 1];
    return next.offset + header_.segments[next.segment].offset - header_.segments[segment].offset;
  }

  const io::StoreHeader& header_;
  std::vector<std::size_t> indices_;  // of the declared weights, in the header
  std::vector<WeightDeclaration> declared_;
  PieceList pieces_;
};

}  // namespace

void write_segments(const SegmentRoute& route, std::span<const std::uint32_t> segments, ThreadTeam& team,
                    const SegmentEvents& events) {
  const Cut cut(route, segments);
  const PieceList& pieces = cut.pieces();
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  Turns turns;
  Xxh64 hash;  // of the segment whose turn it is
  team.run([&](int) {
    PiecePacker packer(pieces, route.tensors, route.reader);
    std::vector<std::byte> bytes;
    for (std::size_t i = next.fetch_add(1); i < pieces.size() && !failed.load(); i = next.fetch_add(1)) {
      try {
        const Piece piece = pieces[i];
        const Cut::Place place = cut.place(piece);
        const io::StoreSegment& segment = route.header.segments[place.segment];
        resize_scratch(bytes, place.padded_end - place.begin);
        std::ranges::fill(bytes, std::byte{0});
        packer.pack(piece, std::span(bytes).first(piece.bytes));
        route.file.write(segment.offset + place.begin, bytes);

        if (!turns.wait(i)) return;
        if (place.begin == 0) hash = Xxh64();
        hash.update(std::span(bytes).first(std::min(place.padded_end, segment.bytes) - place.begin));
        const std::uint64_t xxh64 = hash.digest();
        events.written(bytes.size());
        turns.pass();
        if (place.end == segment.bytes) events.finished(place.segment, xxh64);
      } catch (...) {
        failed.store(true);
        turns.fail();
        throw;
      }
    }
  });
}

void check_sources(const io::StoreHeader& header, const LoadRecipe& recipe, const io::TensorTable& tensors) {
  std::vector<WeightDeclaration> declared = declare_weights(header.model);
  static_cast<void>(PieceList(declared, recipe, tensors));
}

}  // namespace lamella
