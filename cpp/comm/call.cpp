#include "comm/call.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace lamella::comm {
namespace {

std::string in_words(const Call& call, bool all_of_it) {
  std::string words = concat(to_string(call.kind), " of ", call.bytes, " bytes");
  if (!all_of_it) return words;
  return concat(words, " (", to_string(call.type), ", ", call.reduction == Reduction::sum ? "sum" : "maximum",
                ", root ", call.root, ")");
}

}  // namespace

std::string_view to_string(CallKind kind) noexcept {
  switch (kind) {
    case CallKind::barrier: return "barrier";
    case CallKind::all_reduce: return "all_reduce";
    case CallKind::all_gather: return "all_gather";
    case CallKind::reduce_scatter: return "reduce_scatter";
    case CallKind::all_to_all: return "all_to_all";
    case CallKind::broadcast: return "broadcast";
    case CallKind::part: return "the next part of a collective";
  }
  return "?";
}

std::string difference(const Call& its, const Call& first, std::string_view group, std::string_view first_rank) {
  const bool all_of_it = its.kind == first.kind && its.bytes == first.bytes;
  return concat("it called ", in_words(its, all_of_it), " in group ", group, " where ", first_rank, " called ",
                in_words(first, all_of_it), "; ranks must run the same engine on the same model");
}

std::string absence(std::string_view what, std::string_view group, std::chrono::milliseconds deadline) {
  return concat("it did not come to ", what, " of group ", group, " within ",
                static_cast<double>(deadline.count()) / 1e3, " s");
}

std::string further_absent(std::span<const std::string> others) {
  constexpr std::size_t most = 16;
  std::string text;
  for (std::size_t i = 0; i < std::min(others.size(), most); ++i) text += (i == 0 ? "; nor did " : ", ") + others[i];
  return others.size() > most ? concat(text, " and ", others.size() - most, " more") : text;
}

void check_members(const GroupMembers& members, int ranks) {
  check(!members.ranks.empty(), "group ", members.name, " of no ranks");
  for (std::size_t i = 0; i < members.ranks.size(); ++i) {
    const int rank = members.ranks[i];
    check(rank >= 0 && rank < ranks, "rank ", rank, " of ", ranks, " in group ", members.name);
    for (std::size_t j = 0; j < i; ++j) check(members.ranks[j] != rank, "rank ", rank, " twice in ", members.name);
  }
}

void check_all_gather(Bytes mine, MutableBytes all, std::span<const std::size_t> widths, std::size_t rows, int rank,
                      int size) {
  const std::size_t width = std::accumulate(widths.begin(), widths.end(), std::size_t{0});
  check(widths.size() == static_cast<std::size_t>(size) &&
            mine.size() == rows * widths[static_cast<std::size_t>(rank)] && all.size() == rows * width,
        "all_gather of ", mine.size(), " bytes in ", rows, " rows into ", all.size(), " with the widths of ",
        widths.size(), " ranks, ", width, " in all");
}

void check_reduce_scatter(const Elements& all, const Elements& mine, int size) {
  check(all.count == mine.count * static_cast<std::size_t>(size) && all.type == mine.type, "reduce_scatter of ",
        all.count, " elements to ", mine.count, " on each of ", size);
}

void check_all_to_all(Bytes from, std::span<const std::size_t> counts, MutableBytes to,
                      std::span<const std::size_t> received, int size) {
  const auto members = static_cast<std::size_t>(size);
  check(counts.size() == members && received.size() == members &&
            std::accumulate(counts.begin(), counts.end(), std::size_t{0}) == from.size() &&
            std::accumulate(received.begin(), received.end(), std::size_t{0}) == to.size(),
        "all_to_all: the counts of ", counts.size(), " and ", received.size(), " ranks do not fit ", from.size(),
        " and ", to.size(), " bytes among ", members);
}

void check_root(int root, int size) { check(root >= 0 && root < size, "broadcast from member ", root, " of ", size); }

void check_other(int rank, int other, int size) {
  check(other >= 0 && other < size && other != rank, "a message between members ", rank, " and ", other, " of ", size);
}

Part part_of(std::size_t count, std::size_t element_bytes, int index, int size) {
  const std::size_t line = 64 / element_bytes, lines = (count + line - 1) / line;
  const auto cut = [&](int i) {
    return std::min(count, lines * static_cast<std::size_t>(i) / static_cast<std::size_t>(size) * line);
  };
  return {cut(index), cut(index + 1)};
}

Elements range(const Elements& all, const Part& part) noexcept {
  return {static_cast<std::byte*>(all.data) + part.begin * size_of(all.type), part.end - part.begin, all.type};
}

}  // namespace lamella::comm
