#include "comm/local_world.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "comm/call.h"
#include "comm/local_group.h"
#include "comm/reduce.h"

namespace lamella::comm {
namespace {

class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<LocalGroup> group, int rank)
      : group_(std::move(group)), rank_(rank), sources_(static_cast<std::size_t>(group_->size())) {}

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override { return group_->size(); }
  [[nodiscard]] const GroupMembers& members() const noexcept override { return group_->members(); }

  void barrier() override { meet({.call = {.kind = CallKind::barrier}}); }
  void barrier(std::chrono::milliseconds deadline) override {
    group_->meet(rank_, meetings_++, {.call = {.kind = CallKind::barrier}}, deadline);
  }

  void all_reduce(Elements data, Reduction reduction) override {
    const Shown mine{
        .call = {.kind = CallKind::all_reduce, .type = data.type, .reduction = reduction, .bytes = data.bytes()}};
    if (data.bytes() <= LocalGroup::staged_bytes) {
      const std::uint32_t meeting = meet_staged(mine, {static_cast<const std::byte*>(data.data), data.bytes()});
      reduce(data, staged(meeting, 0), reduction);
      return;
    }
    // Every rank reduces a part in place, which nobody else reads, and then copies the others' parts.
    const std::uint32_t meeting = meet_showing(mine, data.data);
    const Part part = part_of(data.count, size_of(data.type), rank_, size());
    group_->read_others(
        [&] { reduce(range(data, part), shown_data(meeting, part.begin * size_of(data.type)), reduction); });
    meet({.call = {.kind = CallKind::part}});
    group_->read_others([&] {
      for (int other = 0; other < size(); ++other) {
        if (other == rank_) continue;
        const Part theirs = part_of(data.count, size_of(data.type), other, size());
        const std::size_t from = theirs.begin * size_of(data.type),
                          bytes = (theirs.end - theirs.begin) * size_of(data.type);
        std::memcpy(static_cast<std::byte*>(data.data) + from, pointers_[static_cast<std::size_t>(other)] + from,
                    bytes);
      }
    });
    meet({.call = {.kind = CallKind::part}});
  }

  void all_gather(Bytes mine, MutableBytes all, std::span<const std::size_t> widths, std::size_t rows) override {
    check_all_gather(mine, all, widths, rows, rank_, size());
    const std::size_t longest = rows * *std::max_element(widths.begin(), widths.end());
    share({.call = {.kind = CallKind::all_gather, .bytes = all.size()}}, mine, longest,
          [&](std::span<const void* const> sources) {
            std::byte* place = all.data();
            for (std::size_t row = 0; row < rows; ++row)
              for (std::size_t i = 0; i < sources.size(); place += widths[i++])
                copy(place, static_cast<const std::byte*>(sources[i]) + row * widths[i], widths[i]);
          });
  }

  void reduce_scatter(Elements all, Elements mine, Reduction reduction) override {
    check_reduce_scatter(all, mine, size());
    const Shown shown{
        .call = {.kind = CallKind::reduce_scatter, .type = all.type, .reduction = reduction, .bytes = all.bytes()}};
    share(shown, {static_cast<const std::byte*>(all.data), all.bytes()}, all.bytes(),
          [&](std::span<const void* const> sources) {
            std::vector<const void*> parts(sources.begin(), sources.end());
            for (const void*& part : parts)
              part = static_cast<const std::byte*>(part) + static_cast<std::size_t>(rank_) * mine.bytes();
            reduce(mine, parts, reduction);
          });
  }

  void all_to_all(Bytes from, std::span<const std::size_t> counts, MutableBytes to,
                  std::span<const std::size_t> received) override {
    check_all_to_all(from, counts, to, received, size());
    const std::uint32_t meeting =
        meet({.call = {.kind = CallKind::all_to_all}, .data = from.data(), .counts = counts.data()});
    int wrong = -1;
    group_->read_others([&] {
      std::byte* place = to.data();
      for (int other = 0; other < size() && wrong < 0; ++other) {
        const Shown& theirs = group_->shown(other, meeting);
        const std::size_t mine = theirs.counts[rank_];
        if (mine != received[static_cast<std::size_t>(other)]) {
          wrong = other;
          continue;
        }
        copy(place, theirs.data + std::accumulate(theirs.counts, theirs.counts + rank_, std::size_t{0}), mine);
        place += mine;
      }
    });
    if (wrong >= 0) {
      group_->state().fail(members_rank(wrong),
                           concat("it sends rank ", members_rank(rank_), " another number of bytes than the ",
                                  received[static_cast<std::size_t>(wrong)], " expected in all_to_all"));
      group_->leave();
    }
    meet({.call = {.kind = CallKind::part}});
  }

  void broadcast(MutableBytes data, int root) override {
    check_root(root, size());
    const Shown shown{.call = {.kind = CallKind::broadcast, .root = root, .bytes = data.size()}};
    share(shown, rank_ == root ? data : MutableBytes(), data.size(), [&](std::span<const void* const> sources) {
      if (rank_ != root) copy(data.data(), sources[static_cast<std::size_t>(root)], data.size());
    });
  }

  void send(Bytes data, int to) override {
    check_other(rank_, to, size());
    group_->send(rank_, to, data);
  }
  void receive(MutableBytes data, int from) override {
    check_other(rank_, from, size());
    group_->receive(from, rank_, data);
  }

  void fail(std::string_view cause) noexcept override { group_->state().fail(members_rank(rank_), cause); }

 private:
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  [[nodiscard]] int members_rank(int member) const noexcept {
    return group_->members().ranks[static_cast<std::size_t>(member)];
  }

  /// Returns the meeting's number.
  std::uint32_t meet(const Shown& mine) {
    const std::uint32_t meeting = meetings_++;
    group_->meet(rank_, meeting, mine);
    return meeting;
  }
  /// With the data copied to where the others find it. After a failure others may still read what stood there two meetings
  /// ago, so nothing is copied then.
  std::uint32_t meet_staged(const Shown& mine, Bytes data) {
    if (group_->state().has_failed()) return meet(mine);  // which throws
    copy(group_->stage(rank_, meetings_), data.data(), data.size());
    return meet(mine);
  }
  std::uint32_t meet_showing(Shown mine, const void* data) {
    mine.data = static_cast<const std::byte*>(data);
    return meet(mine);
  }
  [[nodiscard]] std::span<const void* const> staged(std::uint32_t meeting, std::size_t offset) {
    for (std::size_t i = 0; i < sources_.size(); ++i)
      sources_[i] = group_->stage(static_cast<int>(i), meeting) + offset;
    return sources_;
  }
  [[nodiscard]] std::span<const void* const> shown_data(std::uint32_t meeting, std::size_t offset) {
    pointers_.resize(sources_.size());
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      pointers_[i] = group_->shown(static_cast<int>(i), meeting).data;
      sources_[i] = pointers_[i] == nullptr ? nullptr : pointers_[i] + offset;
    }
    return sources_;
  }

  /// Brings `data` of all ranks, of which the longest has so many bytes, to `body`, in order of the ranks.
  template <typename Body>
  void share(const Shown& mine, Bytes data, std::size_t longest, const Body& body) {
    if (longest <= LocalGroup::staged_bytes) {
      body(staged(meet_staged(mine, data), 0));
      return;
    }
    const std::uint32_t meeting = meet_showing(mine, data.data());
    group_->read_others([&] { body(shown_data(meeting, 0)); });
    meet({.call = {.kind = CallKind::part}});
  }

  const std::shared_ptr<LocalGroup> group_;
  const int rank_;
  std::uint32_t meetings_ = 0;
  std::vector<const void*> sources_;
  std::vector<const std::byte*> pointers_;  // of the call that runs
};

}  // namespace

LocalWorld::LocalWorld(int ranks, std::chrono::milliseconds deadline)
    : state_(std::make_shared<LocalState>(ranks, deadline)) {
  check(ranks >= 1, "a world of ", ranks, " ranks");
}

int LocalWorld::size() const noexcept { return state_->ranks(); }

std::vector<std::unique_ptr<Communicator>> LocalWorld::group(GroupMembers members) {
  const auto group = std::make_shared<LocalGroup>(std::move(members), state_);
  state_->add(group);
  std::vector<std::unique_ptr<Communicator>> ends;
  ends.reserve(group->members().ranks.size());
  for (int member = 0; member < group->size(); ++member)
    ends.push_back(std::make_unique<LocalCommunicator>(group, member));
  return ends;
}

std::vector<std::unique_ptr<Communicator>> LocalWorld::all() {
  std::vector<int> ranks(static_cast<std::size_t>(size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return group({.name = "world", .ranks = std::move(ranks)});
}

}  // namespace lamella::comm
