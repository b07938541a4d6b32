// How the ranks of a group that are processes meet: messages with what each of them calls, and then what it brings.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/call.h"
#include "comm/communicator.h"
#include "comm/mpi_requests.h"
#include "comm/mpi_state.h"

namespace lamella::comm {

/// One rank's end of a group. Ranks talk directly to each other, all to all: n - 1 messages each, but only one
/// message's time for what is short. That is what tensor groups of a machine or two want; a tree would take log2(n)
/// times.
///
/// MPI reads and writes memory of the group only, never the caller's, which may go as soon as a call has failed, while
/// MPI may still be at work for a rank that is late. The price is a copy on each side; parts stay in the cache.
class MpiGroup {
 public:
  MpiGroup(GroupMembers members, std::shared_ptr<MpiState> state, int tag);
  /// Where a call failed the memory stays behind: MPI may still write to it.
  ~MpiGroup();
  MpiGroup(const MpiGroup&) = delete;
  MpiGroup& operator=(const MpiGroup&) = delete;

  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.ranks.size()); }
  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] const GroupMembers& members() const noexcept { return members_; }
  [[nodiscard]] MpiState& state() const noexcept { return *state_; }
  [[nodiscard]] int world_rank(int member) const { return members_.ranks.at(static_cast<std::size_t>(member)); }
  /// Bytes that a rank may bring in the first message: as many as take no longer to send to all than to meet.
  [[nodiscard]] std::size_t first_bytes() const noexcept { return first_bytes_; }

  void send(Bytes data, int to);
  void receive(MutableBytes data, int from);

 private:
  friend class MpiExchange;

  /// In front of the first message of an exchange: what must be alike, and what comes to the receiver. Of fixed layout,
  /// and all ranks run the same program.
  struct Header {
    std::uint64_t group = 0;     // a digest of its name and members
    std::uint64_t sequence = 0;  // exchanges before this one
    std::uint64_t shape = 0;     // a digest of what else must be alike
    std::uint64_t bytes = 0;     // of the call
    std::uint64_t part = 0;      // for the receiver, in this message and later ones
    std::int32_t root = 0;
    CallKind kind = CallKind::barrier;
    DataType type = DataType::f32;
    Reduction reduction = Reduction::sum;
    std::uint8_t unused = 0;

    [[nodiscard]] Call call() const noexcept;
    [[nodiscard]] bool is_same_call(const Header& other) const noexcept {
      return group == other.group && sequence == other.sequence && shape == other.shape && call() == other.call();
    }
  };
  static_assert(sizeof(Header) == 48);

  /// In front of a message from one rank to another.
  struct MessageHeader {
    std::uint64_t group = 0, sequence = 0, bytes = 0;
  };

  [[nodiscard]] std::size_t slot_bytes() const noexcept { return sizeof(Header) + first_bytes_; }
  /// Where the first message to or from a member stands, and part `round` of what follows it.
  [[nodiscard]] MutableBytes first(bool incoming, int member) const noexcept;
  [[nodiscard]] MutableBytes part(bool incoming, int member, std::size_t round) const noexcept;
  /// Memory for the first messages, or for two parts of every member in both directions; once.
  void take_first();
  void take_parts();

  const GroupMembers members_;
  const std::shared_ptr<MpiState> state_;
  int rank_ = 0;
  const int tag_;  // of collectives; the next one is for messages
  std::uint64_t digest_ = 0;
  std::size_t first_bytes_ = 0, part_bytes_ = 0;
  std::unique_ptr<std::byte[]> first_, parts_;
  std::uint64_t exchanges_ = 0;
  std::vector<std::uint64_t> sent_, received_;  // messages, by member
  std::array<MpiRequests, 2> requests_;         // of two rounds
  MpiRequests message_;
};

/// What a rank calls and brings.
struct Exchanged {
  Call call;
  std::uint64_t shape = 0;              // a digest of what else must be alike
  std::span<const Bytes> outgoing;      // to each member, or one for all; what stands at the rank's own place stays
  std::span<const std::size_t> incoming;  // bytes from each member, or one for all
  int root = -1;                        // of a broadcast: the others talk to it only
};

/// A meeting of a group, and what its members bring, in rounds: the first with what fits into the messages in which
/// they meet, the later ones with a part of fixed length each, while the next is already on its way. So memory is
/// bounded, no message is longer than MPI takes, and a rank that stops in the middle is found within the deadline.
///
///   for (MpiExchange rounds(group, what); rounds.next();) use rounds.from(member), which lies at rounds.offset()
///
/// Outgoing data is read a round ahead. Errors: rank_failed.
class MpiExchange {
 public:
  MpiExchange(MpiGroup& group, const Exchanged& what) : MpiExchange(group, what, group.state().deadline()) {}
  MpiExchange(MpiGroup& group, const Exchanged& what, std::chrono::milliseconds deadline);

  /// Returns whether there is another round, which has come then.
  [[nodiscard]] bool next();
  /// Of this round, in the data of every member.
  [[nodiscard]] std::size_t offset() const noexcept { return begin_of(round_); }
  /// What the member brought in this round; of the own rank nothing.
  [[nodiscard]] Bytes from(int member) const;

 private:
  [[nodiscard]] bool is_partner(int member) const noexcept;
  [[nodiscard]] Bytes outgoing(int member) const noexcept;
  [[nodiscard]] std::size_t incoming(int member) const noexcept;
  [[nodiscard]] std::size_t begin_of(std::size_t round) const noexcept;
  /// Bytes of so many that belong to a round.
  [[nodiscard]] std::size_t bytes_of(std::size_t round, std::size_t all) const noexcept;
  void post_first();
  void post(std::size_t round);
  void wait(std::size_t round);
  /// What arrived in the first round calls the same. Errors: rank_failed.
  void compare_calls();
  void compare_lengths();
  [[nodiscard]] MpiGroup::Header header_from(int member) const;
  [[nodiscard]] MpiGroup::Header own_header(std::size_t part) const noexcept;
  [[noreturn]] void accuse(int member, const std::string& cause) const;

  MpiGroup& group_;
  const Exchanged what_;
  const std::chrono::milliseconds deadline_;
  std::size_t rounds_ = 1, round_ = 0;
  bool has_begun_ = false;
};

}  // namespace lamella::comm
