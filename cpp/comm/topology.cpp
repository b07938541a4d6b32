#include "comm/topology.h"

#include <iomanip>
#include <sstream>

#include "base/check.h"

namespace lamella::comm {
namespace {

constexpr int most_ranks = 65'536;

}  // namespace

std::string_view to_string(GroupKind kind) noexcept {
  switch (kind) {
    case GroupKind::tensor: return "tensor";
    case GroupKind::pipeline: return "pipeline";
    case GroupKind::data: return "data";
    case GroupKind::expert: return "expert";
    case GroupKind::expert_slice: return "expert_slice";
  }
  return "?";
}

void validate(const ParallelSizes& sizes) {
  struct Named {
    const char* option;
    int size;
  };
  std::int64_t ranks = 1;
  for (const Named& each :
       {Named{"tensor_parallel_size", sizes.tensor}, Named{"pipeline_parallel_size", sizes.pipeline},
        Named{"data_parallel_size", sizes.data}, Named{"expert_parallel_size", sizes.expert},
        Named{"expert_slicing_size", sizes.expert_slices}})
    if (each.size < 1 || each.size > most_ranks)
      throw Error(ErrorCode::invalid_argument, concat(each.option, " is ", each.size, "; expected 1 to ", most_ranks));
  for (const int size : {sizes.tensor, sizes.pipeline, sizes.data}) {
    ranks *= size;
    if (ranks > most_ranks)
      throw Error(ErrorCode::invalid_argument,
                  concat("tensor_parallel_size ", sizes.tensor, " x pipeline_parallel_size ", sizes.pipeline,
                         " x data_parallel_size ", sizes.data, " are more than ", most_ranks, " ranks"));
  }
  const int stage = sizes.tensor * sizes.data;
  const std::int64_t holders = std::int64_t{sizes.expert} * sizes.expert_slices;
  if (stage % holders == 0) return;
  if (stage % sizes.expert_slices != 0)
    throw Error(ErrorCode::invalid_argument,
                concat("expert_slicing_size is ", sizes.expert_slices, "; expected a divisor of the ", stage,
                       " ranks of a stage (tensor_parallel_size x data_parallel_size)"));
  int nearest = std::min(sizes.expert, stage / sizes.expert_slices);
  while (stage / sizes.expert_slices % nearest != 0) --nearest;
  throw Error(
      ErrorCode::invalid_argument,
      concat("expert_parallel_size is ", sizes.expert, "; expected a divisor of the ", stage / sizes.expert_slices,
             " ranks of a stage (tensor_parallel_size x data_parallel_size / expert_slicing_size), for example ",
             nearest));
}

Topology::Topology(const ParallelSizes& sizes) : sizes_(sizes) { validate(sizes); }

Topology::Spacing Topology::spacing(GroupKind kind) const noexcept {
  switch (kind) {
    case GroupKind::tensor: return {1, sizes_.tensor};
    case GroupKind::data: return {sizes_.tensor, sizes_.data};
    case GroupKind::pipeline: return {sizes_.tensor * sizes_.data, sizes_.pipeline};
    case GroupKind::expert_slice: return {1, sizes_.expert_slices};
    case GroupKind::expert: return {sizes_.expert_slices, sizes_.expert};
  }
  return {1, 1};
}

int Topology::index_in(GroupKind kind, int rank) const {
  check(rank >= 0 && rank < ranks(), "rank ", rank, " of ", ranks());
  const Spacing own = spacing(kind);
  return rank / own.stride % own.size;
}

GroupMembers Topology::group_of(GroupKind kind, int rank) const {
  const Spacing own = spacing(kind);
  const int first = rank - index_in(kind, rank) * own.stride;
  GroupMembers group{.name = std::string(to_string(kind)), .ranks = {}};
  for (int index = 0; index < own.size; ++index) group.ranks.push_back(first + index * own.stride);
  return group;
}

std::vector<GroupMembers> Topology::groups(GroupKind kind) const {
  std::vector<GroupMembers> all;
  for (int rank = 0; rank < ranks(); ++rank)
    if (index_in(kind, rank) == 0) all.push_back(group_of(kind, rank));
  return all;
}

std::string to_table(const Topology& topology) {
  std::ostringstream out;
  const auto size = [&](GroupKind kind) { return topology.group_of(kind, 0).ranks.size(); };
  out << std::left << std::setw(6) << "rank";
  for (const GroupKind kind : group_kinds)
    if (size(kind) > 1) out << "  " << std::setw(12) << to_string(kind);
  for (int rank = 0; rank < topology.ranks(); ++rank) {
    out << "\n" << std::setw(6) << rank;
    for (const GroupKind kind : group_kinds)
      if (size(kind) > 1) out << "  " << std::setw(12) << concat(topology.index_in(kind, rank), " of ", size(kind));
  }
  out << "\n";
  return std::move(out).str();
}

}  // namespace lamella::comm
