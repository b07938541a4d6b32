#include "comm/mpi_world.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "base/checksum.h"
#include "comm/call.h"
#include "comm/mpi_group.h"
#include "comm/mpi_state.h"
#include "comm/reduce.h"

namespace lamella::comm {
namespace {

Bytes bytes_of(const Elements& elements) { return {static_cast<const std::byte*>(elements.data), elements.bytes()}; }

void copy(std::byte* to, Bytes from) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
}

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(std::unique_ptr<MpiGroup> group)
      : group_(std::move(group)), outgoing_(members_count()), incoming_(members_count()), sources_(members_count()) {}

  [[nodiscard]] int rank() const noexcept override { return group_->rank(); }
  [[nodiscard]] int size() const noexcept override { return group_->size(); }
  [[nodiscard]] const GroupMembers& members() const noexcept override { return group_->members(); }

  void barrier() override { barrier(group_->state().deadline()); }
  void barrier(std::chrono::milliseconds deadline) override {
    MpiExchange rounds(*group_, {.call = {.kind = CallKind::barrier}}, deadline);
    while (rounds.next()) continue;
  }

  /// What is short goes to all, who reduce all of it: one message's time. Otherwise every rank gets its part of all
  /// others' elements, reduces it and sends it to all: twice that time, but each rank sends only 2 (n - 1) / n of its
  /// bytes.
  void all_reduce(Elements data, Reduction reduction) override {
    const Call call{.kind = CallKind::all_reduce, .type = data.type, .reduction = reduction, .bytes = data.bytes()};
    if (data.bytes() <= group_->first_bytes()) {
      const Bytes mine = bytes_of(data);
      reduce_rounds({.call = call, .outgoing = {&mine, 1}, .incoming = same_from_all(mine.size())}, mine, data,
                    reduction);
      return;
    }
    for (int member = 0; member < size(); ++member) outgoing_[index(member)] = bytes_of(part_for(data, member));
    const Elements mine = part_for(data, rank());
    reduce_rounds({.call = call, .outgoing = outgoing_, .incoming = same_from_all(mine.bytes())}, bytes_of(mine), mine,
                  reduction);

    for (int member = 0; member < size(); ++member) incoming_[index(member)] = part_for(data, member).bytes();
    const Bytes reduced = bytes_of(mine);
    for (MpiExchange rounds(*group_, {.call = {.kind = CallKind::part, .bytes = data.bytes()},
                                      .outgoing = {&reduced, 1},
                                      .incoming = incoming_});
         rounds.next();)
      for (int member = 0; member < size(); ++member)
        copy(static_cast<std::byte*>(part_for(data, member).data) + rounds.offset(), rounds.from(member));
  }

  void all_gather(Bytes mine, MutableBytes all, std::span<const std::size_t> widths, std::size_t rows) override {
    check_all_gather(mine, all, widths, rows, rank(), size());
    for (std::size_t i = 0; i < widths.size(); ++i) incoming_[i] = widths[i] * rows;
    const Exchanged what{.call = {.kind = CallKind::all_gather, .bytes = all.size()},
                         .shape = xxh64(std::as_bytes(widths), rows),
                         .outgoing = {&mine, 1},
                         .incoming = incoming_};
    const std::size_t row_bytes = std::accumulate(widths.begin(), widths.end(), std::size_t{0});
    // Puts a piece of what a member brings, from `offset` on, into the rows.
    const auto place = [&](int member, std::size_t offset, Bytes data) {
      const std::size_t width = widths[index(member)];
      const std::size_t before =
          std::accumulate(widths.begin(), widths.begin() + static_cast<std::ptrdiff_t>(member), std::size_t{0});
      while (!data.empty()) {
        const std::size_t row = offset / width, column = offset % width;
        const Bytes piece = data.first(std::min(data.size(), width - column));
        copy(all.data() + row * row_bytes + before + column, piece);
        offset += piece.size();
        data = data.subspan(piece.size());
      }
    };
    for (MpiExchange rounds(*group_, what); rounds.next();)
      for (int member = 0; member < size(); ++member) place(member, rounds.offset(), rounds.from(member));
    place(rank(), 0, mine);
  }

  void reduce_scatter(Elements all, Elements mine, Reduction reduction) override {
    check_reduce_scatter(all, mine, size());
    const auto part = [&](int member) { return bytes_of(all).subspan(index(member) * mine.bytes(), mine.bytes()); };
    for (int member = 0; member < size(); ++member) outgoing_[index(member)] = part(member);
    reduce_rounds(
        {.call = {.kind = CallKind::reduce_scatter, .type = all.type, .reduction = reduction, .bytes = all.bytes()},
         .outgoing = outgoing_,
         .incoming = same_from_all(mine.bytes())},
        part(rank()), mine, reduction);
  }

  void all_to_all(Bytes from, std::span<const std::size_t> counts, MutableBytes to,
                  std::span<const std::size_t> received) override {
    check_all_to_all(from, counts, to, received, size());
    std::size_t begin = 0;
    for (int member = 0; member < size(); begin += counts[index(member++)])
      outgoing_[index(member)] = from.subspan(begin, counts[index(member)]);
    for (MpiExchange rounds(*group_,
                            {.call = {.kind = CallKind::all_to_all}, .outgoing = outgoing_, .incoming = received});
         rounds.next();) {
      std::byte* place = to.data();
      for (int member = 0; member < size(); place += received[index(member++)])
        copy(place + rounds.offset(), rounds.from(member));
    }
    const std::size_t own =
        std::accumulate(received.begin(), received.begin() + static_cast<std::ptrdiff_t>(rank()), std::size_t{0});
    if (counts[index(rank())] != received[index(rank())])
      fail(concat("it sends itself ", counts[index(rank())], " bytes in all_to_all and expects ",
                  received[index(rank())]));
    group_->state().look();
    copy(to.data() + own, outgoing_[index(rank())]);
  }

  void broadcast(MutableBytes data, int root) override {
    check_root(root, size());
    const Bytes outgoing = rank() == root ? Bytes(data) : Bytes();
    incoming_.assign(incoming_.size(), 0);
    if (rank() != root) incoming_[index(root)] = data.size();
    for (MpiExchange rounds(*group_, {.call = {.kind = CallKind::broadcast, .root = root, .bytes = data.size()},
                                      .outgoing = {&outgoing, 1},
                                      .incoming = incoming_,
                                      .root = root});
         rounds.next();)
      copy(data.data() + rounds.offset(), rounds.from(root));
  }

  void send(Bytes data, int to) override {
    check_other(rank(), to, size());
    group_->send(data, to);
  }
  void receive(MutableBytes data, int from) override {
    check_other(rank(), from, size());
    group_->receive(data, from);
  }

  void fail(std::string_view cause) noexcept override { group_->state().fail(group_->state().rank(), cause); }

 private:
  [[nodiscard]] std::size_t members_count() const noexcept { return static_cast<std::size_t>(group_->size()); }
  [[nodiscard]] static std::size_t index(int member) noexcept { return static_cast<std::size_t>(member); }
  [[nodiscard]] Elements part_for(const Elements& all, int member) const {
    return range(all, part_of(all.count, size_of(all.type), member, size()));
  }
  [[nodiscard]] std::span<const std::size_t> same_from_all(std::size_t bytes) {
    incoming_.assign(incoming_.size(), bytes);
    return incoming_;
  }

  /// Reduces what all bring and `mine` into `to`, which has as many bytes, round after round.
  void reduce_rounds(const Exchanged& what, Bytes mine, const Elements& to, Reduction reduction) {
    reduce({to.data, 0, to.type}, sources_, reduction);  // refuses what cannot be reduced before anything is sent
    const std::size_t element = size_of(to.type);
    for (MpiExchange rounds(*group_, what); rounds.next();) {
      const std::size_t begin = rounds.offset() / element;
      std::size_t bytes = size() == 1 ? mine.size() : 0;
      for (int member = 0; member < size(); ++member) {
        const Bytes theirs = rounds.from(member);
        sources_[index(member)] = member == rank() ? mine.data() + rounds.offset() : theirs.data();
        bytes = std::max(bytes, theirs.size());
      }
      reduce(range(to, {begin, begin + bytes / element}), sources_, reduction);
    }
  }

  const std::unique_ptr<MpiGroup> group_;
  // Of the call that runs:
  std::vector<Bytes> outgoing_;
  std::vector<std::size_t> incoming_;
  std::vector<const void*> sources_;
};

}  // namespace

MpiWorld::MpiWorld(const MpiOptions& options) : state_(std::make_shared<MpiState>(options)) {}

int MpiWorld::rank() const noexcept { return state_->rank(); }
int MpiWorld::size() const noexcept { return state_->ranks(); }

std::unique_ptr<Communicator> MpiWorld::group(GroupMembers members) {
  check_members(members, size());
  const int tag = state_->take_tags();
  if (std::ranges::find(members.ranks, rank()) == members.ranks.end()) return nullptr;
  return std::make_unique<MpiCommunicator>(std::make_unique<MpiGroup>(std::move(members), state_, tag));
}

std::unique_ptr<Communicator> MpiWorld::all() {
  std::vector<int> ranks(static_cast<std::size_t>(size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return group({.name = "world", .ranks = std::move(ranks)});
}

}  // namespace lamella::comm
