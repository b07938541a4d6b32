// Who works with whom: the groups that the ranks of a job form, from their numbers alone.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace lamella::comm {

/// How many ranks share what. `tensor` ranks share every layer (the paper's IV-A), `pipeline` stages share the layers (IV-B),
/// and `data` replicas of all that share the requests. Within a stage the same tensor * data ranks also share the experts
/// of a mixture (V-A): `expert` ranks hold different ones, `expert_slices` share each; what is left are replicas of them.
struct ParallelSizes {
  int tensor = 1, pipeline = 1, data = 1, expert = 1, expert_slices = 1;

  [[nodiscard]] int ranks() const noexcept { return tensor * pipeline * data; }
};

/// Errors: invalid_argument naming the option for a size below 1, for more than 65,536 ranks, and for experts that the ranks
/// of a stage cannot be dealt out to; with the nearest sizes that work.
void validate(const ParallelSizes& sizes);

enum class GroupKind : std::uint8_t { tensor, pipeline, data, expert, expert_slice };
inline constexpr std::array group_kinds = {GroupKind::tensor, GroupKind::pipeline, GroupKind::data, GroupKind::expert,
                                           GroupKind::expert_slice};
[[nodiscard]] std::string_view to_string(GroupKind kind) noexcept;

/// Ranks are numbered with the tensor ranks side by side, since they talk most, then the replicas, then the stages:
/// rank = (stage * data + replica) * tensor + part. Counted within a stage, slices of an expert stand side by side.
class Topology {
 public:
  /// The sizes have been validated.
  explicit Topology(const ParallelSizes& sizes);

  [[nodiscard]] const ParallelSizes& sizes() const noexcept { return sizes_; }
  [[nodiscard]] int ranks() const noexcept { return sizes_.ranks(); }
  /// The rank's number within its group of that kind: which part of every layer, which stage, ... it has.
  [[nodiscard]] int index_in(GroupKind kind, int rank) const;
  /// The group of that kind that the rank belongs to, in order of those numbers.
  [[nodiscard]] GroupMembers group_of(GroupKind kind, int rank) const;
  /// Every group of that kind, in order of its first rank.
  [[nodiscard]] std::vector<GroupMembers> groups(GroupKind kind) const;

 private:
  /// Of a kind's groups: how far neighbours stand apart, and how many there are.
  struct Spacing {
    int stride, size;
  };
  [[nodiscard]] Spacing spacing(GroupKind kind) const noexcept;

  ParallelSizes sizes_;
};

/// A rank a line, with its numbers in groups of more than one: for people.
[[nodiscard]] std::string to_table(const Topology& topology);

}  // namespace lamella::comm
