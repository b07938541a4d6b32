// How ranks talk: the collectives of one group of ranks, whoever carries them (threads of one process, MPI).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamella/types.h"

namespace lamella::comm {

/// What becomes of the elements that ranks bring. NaN in any of them makes either NaN.
enum class Reduction : std::uint8_t { sum, maximum };

/// Elements of one type, in place: `count` of them from `data` on.
struct Elements {
  void* data = nullptr;
  std::size_t count = 0;
  DataType type = DataType::f32;

  [[nodiscard]] std::size_t bytes() const noexcept { return count * size_of(type); }
};

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

/// The ranks of a group, in order: `ranks[i]` is the number in the whole job of the one that calls itself i. The name
/// ("world", "tensor", ...) stands in messages.
struct GroupMembers {
  std::string name = "world";
  std::vector<int> ranks;
};

/// One rank's end of a group. Collectives are called by one thread at a time, in the same order and with the same sizes on
/// all ranks of the group.
///
/// Every call ends within the group's deadline: in time counted from the moment that the others are waited for. Errors:
/// rank_failed, naming the ranks that did not come, or the one that was reported as failed or called something else.
/// After it buffers hold nothing of meaning and every later call of every group of the job fails the same way, on all
/// ranks.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  /// This rank's index in the group, and how many there are.
  [[nodiscard]] virtual int rank() const noexcept = 0;
  [[nodiscard]] virtual int size() const noexcept = 0;
  [[nodiscard]] virtual const GroupMembers& members() const noexcept = 0;

  /// Returns once all have called it. With another deadline than the group's where ranks come from work of unequal
  /// length, as at the start.
  virtual void barrier() = 0;
  virtual void barrier(std::chrono::milliseconds deadline) = 0;
  /// Every rank gets the reduction over all: element by element in order of the ranks, in fp32 for the floats and rounded
  /// once, so that all ranks have the same bits. Errors also: internal for a maximum or sum of int8.
  virtual void all_reduce(Elements data, Reduction reduction) = 0;
  /// Side by side in everyone's `all`, row after row: `widths[i]` bytes of each of the `rows` rows come from rank i, whose
  /// `mine` has them one row behind the other. One row puts all parts behind each other.
  virtual void all_gather(Bytes mine, MutableBytes all, std::span<const std::size_t> widths, std::size_t rows = 1) = 0;
  /// As all_reduce, but rank i gets part i of size() equal parts, into `mine`; `all` is unchanged.
  virtual void reduce_scatter(Elements all, Elements mine, Reduction reduction) = 0;
  /// `counts[i]` bytes of `from`, one part behind the other, go to rank i; what rank i sends here, `received[i]` bytes, stands
  /// in `to` in order of the ranks. Errors also: rank_failed where a rank sends another number than is expected of it.
  virtual void all_to_all(Bytes from, std::span<const std::size_t> counts, MutableBytes to,
                          std::span<const std::size_t> received) = 0;
  /// `data` of rank `root` goes to all.
  virtual void broadcast(MutableBytes data, int root) = 0;
  /// To one other rank, which receives messages of one sender in the order in which they were sent. Returns when `data` may
  /// change again, which may be before it has arrived.
  virtual void send(Bytes data, int to) = 0;
  /// The next message of that rank. Errors also: rank_failed where it is not as long as `data`.
  virtual void receive(MutableBytes data, int from) = 0;
  /// Tells all ranks of the job that this one has failed, and why: they end what they wait for with rank_failed. The first
  /// report of a job counts.
  virtual void fail(std::string_view cause) noexcept = 0;
};

}  // namespace lamella::comm
