// The memory in which the ranks of a group meet that are threads of one process.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "base/epoch.h"
#include "comm/call.h"
#include "comm/communicator.h"
#include "comm/local_state.h"

namespace lamella::comm {

/// What a rank shows the others when it comes to a meeting.
struct Shown {
  Call call;
  const std::byte* data = nullptr;
  const std::size_t* counts = nullptr;  // of an all_to_all
};

/// A group's meeting place. A rank that comes to its n-th meeting says so in a count of its own, on which the others wait
/// one by one: so who waits knows for whom.
///
/// What a rank shows and stages at meeting n may change at its meeting n + 2: by then all have come to n + 1, and so
/// ended with n. Hence two of each.
class LocalGroup {
 public:
  /// What ranks stage here may be so long; they read more from each other's own buffers, and meet again when they have.
  static constexpr std::size_t staged_bytes = 32768;

  LocalGroup(GroupMembers members, std::shared_ptr<LocalState> state);

  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.ranks.size()); }
  [[nodiscard]] const GroupMembers& members() const noexcept { return members_; }
  [[nodiscard]] LocalState& state() const noexcept { return *state_; }

  /// Comes to meeting number `meeting` (from 0) as member `me` and returns when all have. Errors: rank_failed, also where
  /// they do not call the same.
  void meet(int me, std::uint32_t meeting, const Shown& mine) { meet(me, meeting, mine, state_->deadline()); }
  void meet(int me, std::uint32_t meeting, const Shown& mine, std::chrono::milliseconds deadline);
  [[nodiscard]] const Shown& shown(int member, std::uint32_t meeting) const noexcept {
    return places_[static_cast<std::size_t>(member)].shown[meeting % 2];
  }
  [[nodiscard]] std::byte* stage(int member, std::uint32_t meeting) const noexcept {
    return places_[static_cast<std::size_t>(member)].staged.get() + meeting % 2 * staged_bytes;
  }

  /// Calls `body`, which reads the other ranks' buffers. A rank that leaves with an error waits for those who read, since
  /// its buffers may go with it. Errors: rank_failed, where a rank has failed already; the body is not called then.
  template <typename Body>
  void read_others(const Body& body) {
    {
      const Reading reading(readers_);
      if (!state_->has_failed()) return body();
    }
    leave();
  }

  void send(int from, int to, Bytes data);
  void receive(int from, int to, MutableBytes data);

  /// Ends all waits, after the state has failed.
  void wake() noexcept;
  /// Throws rank_failed once nobody reads this rank's buffers.
  [[noreturn]] void leave();

 private:
  /// Counted while it lives. Who leaves looks at the count after the failure was noted, who reads at the failure after it
  /// was counted: one of them sees the other.
  class Reading {
   public:
    explicit Reading(std::atomic<int>& readers) : readers_(readers) {
      readers_.fetch_add(1, std::memory_order_seq_cst);
    }
    ~Reading() { readers_.fetch_sub(1, std::memory_order_release); }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;

   private:
    std::atomic<int>& readers_;
  };
  struct alignas(64) Place {
    Epoch meetings;
    std::array<Shown, 2> shown;
    std::unique_ptr<std::byte[]> staged;
  };
  /// Messages from one rank to another that were not received yet.
  struct Mailbox {
    std::mutex mutex;
    std::deque<std::vector<std::byte>> messages;
    Epoch sent;
  };

  struct Wait {
    std::string_view what;
    std::chrono::milliseconds deadline;
  };
  /// Waits until the epoch has another count than `seen`, for what `member` does. `absent` gives the other members that
  /// are waited for too.
  template <typename Absent>
  void wait_for(int member, Epoch& epoch, std::uint32_t seen, const Wait& wait, const Absent& absent);
  void compare_calls(std::uint32_t meeting);
  [[nodiscard]] Mailbox& mailbox(int from, int to) noexcept {
    return mailboxes_[static_cast<std::size_t>(from) * members_.ranks.size() + static_cast<std::size_t>(to)];
  }
  [[nodiscard]] int world_rank(int member) const { return members_.ranks.at(static_cast<std::size_t>(member)); }

  const GroupMembers members_;
  const std::shared_ptr<LocalState> state_;
  std::unique_ptr<Place[]> places_;
  std::unique_ptr<Mailbox[]> mailboxes_;
  Patience patience_;
  std::atomic<int> readers_{0};
};

}  // namespace lamella::comm
