// What the ranks of a group call: compared, checked and named alike whoever carries it.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "comm/communicator.h"

namespace lamella::comm {

/// The collectives, to compare what ranks call and to name it.
enum class CallKind : std::uint8_t { barrier, all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, part };
[[nodiscard]] std::string_view to_string(CallKind kind) noexcept;

/// What all ranks of a group must call alike.
struct Call {
  CallKind kind = CallKind::barrier;
  DataType type = DataType::f32;
  Reduction reduction = Reduction::sum;
  int root = 0;
  std::size_t bytes = 0;  // of each rank; 0 where they may differ

  bool operator==(const Call&) const = default;
};

/// For messages about a rank: that it called something else than the rank `first_rank` did, and that it stayed away.
[[nodiscard]] std::string difference(const Call& its, const Call& first, std::string_view group,
                                     std::string_view first_rank);
[[nodiscard]] std::string absence(std::string_view what, std::string_view group, std::chrono::milliseconds deadline);
/// What is added where `others` stayed away too: "; nor did ..." with the first of their names, or nothing.
[[nodiscard]] std::string further_absent(std::span<const std::string> others);

/// That a group has members, each once, of so many ranks. Errors: internal.
void check_members(const GroupMembers& members, int ranks);
/// Checks of a call's own arguments on a rank of `size`. Errors: internal.
void check_all_gather(Bytes mine, MutableBytes all, std::span<const std::size_t> widths, std::size_t rows, int rank,
                      int size);
void check_reduce_scatter(const Elements& all, const Elements& mine, int size);
void check_all_to_all(Bytes from, std::span<const std::size_t> counts, MutableBytes to,
                      std::span<const std::size_t> received, int size);
void check_root(int root, int size);
void check_other(int rank, int other, int size);

/// Elements [begin, end) of `count` that come to member `index` of `size`: cut at whole lines of memory.
struct Part {
  std::size_t begin, end;
};
[[nodiscard]] Part part_of(std::size_t count, std::size_t element_bytes, int index, int size);
[[nodiscard]] Elements range(const Elements& all, const Part& part) noexcept;

}  // namespace lamella::comm
