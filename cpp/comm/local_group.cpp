#include "comm/local_group.h"

#include <cstring>
#include <thread>

#include "base/check.h"

namespace lamella::comm {

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

void LocalState::add(const std::shared_ptr<LocalGroup>& group) {
  const std::lock_guard lock(mutex_);
  std::erase_if(groups_, [](const std::weak_ptr<LocalGroup>& other) { return other.expired(); });
  groups_.push_back(group);
}

void LocalState::fail(int rank, std::string_view cause) noexcept {
  const std::lock_guard lock(mutex_);
  if (failed_.load(std::memory_order_relaxed)) return;
  try {
    message_ = concat("rank ", rank, " failed: ", cause);
  } catch (const std::exception&) {  // throw_failure() then says only that
    message_.clear();
  }
  failed_.store(true, std::memory_order_seq_cst);
  for (const std::weak_ptr<LocalGroup>& group : groups_)
    if (const std::shared_ptr<LocalGroup> alive = group.lock()) alive->wake();
}

void LocalState::throw_failure() {
  const std::lock_guard lock(mutex_);
  throw Error(ErrorCode::rank_failed, message_.empty() ? "a rank failed, and memory for more words ran out" : message_);
}

LocalGroup::LocalGroup(GroupMembers members, std::shared_ptr<LocalState> state)
    : members_(std::move(members)), state_(std::move(state)) {
  const auto count = members_.ranks.size();
  check(count > 0, "group ", members_.name, " of no ranks");
  for (std::size_t i = 0; i < count; ++i) {
    const int rank = members_.ranks[i];
    check(rank >= 0 && rank < state_->ranks(), "rank ", rank, " of ", state_->ranks(), " in group ", members_.name);
    for (std::size_t j = 0; j < i; ++j) check(members_.ranks[j] != rank, "rank ", rank, " twice in ", members_.name);
  }
  places_ = std::make_unique<Place[]>(count);
  mailboxes_ = std::make_unique<Mailbox[]>(count * count);
  for (std::size_t i = 0; i < count; ++i) places_[i].staged = std::make_unique<std::byte[]>(2 * staged_bytes);
}

void LocalGroup::meet(int me, std::uint32_t meeting, const Shown& mine) {
  if (state_->has_failed()) leave();
  Place& place = places_[static_cast<std::size_t>(me)];
  place.shown[meeting % 2] = mine;
  place.meetings.advance();
  for (int member = 0; member < size(); ++member) {
    if (member == me) continue;
    Epoch& others = places_[static_cast<std::size_t>(member)].meetings;
    // A member may be one meeting further on, never more. Counts wrap around.
    for (std::uint32_t seen = others.count(); static_cast<std::int32_t>(seen - (meeting + 1)) < 0;
         seen = others.count())
      wait_for(member, others, seen, to_string(mine.kind));
  }
  if (state_->has_failed()) leave();  // which advances the counts too
  compare_calls(meeting);
}

void LocalGroup::compare_calls(std::uint32_t meeting) {
  const Shown& first = shown(0, meeting);
  for (int member = 1; member < size(); ++member) {
    const Shown& other = shown(member, meeting);
    if (first.same_call(other)) continue;
    state_->fail(world_rank(member),
                 concat("it called ", to_string(other.kind), " of ", other.bytes, " bytes in group ", members_.name,
                        " where rank ", world_rank(0), " called ", to_string(first.kind), " of ", first.bytes,
                        " bytes; ranks must run the same engine on the same model"));
    leave();
  }
}

void LocalGroup::wait_for(int member, Epoch& epoch, std::uint32_t seen, std::string_view what) {
  if (!epoch.wait_beyond_for(seen, patience_, state_->deadline()))
    state_->fail(world_rank(member), concat("it did not come to ", what, " of group ", members_.name, " within ",
                                            static_cast<double>(state_->deadline().count()) / 1e3, " s"));
  if (state_->has_failed()) leave();
}

void LocalGroup::send(int from, int to, Bytes data) {
  if (state_->has_failed()) leave();
  Mailbox& box = mailbox(from, to);
  std::vector<std::byte> message(data.begin(), data.end());
  {
    const std::lock_guard lock(box.mutex);
    box.messages.push_back(std::move(message));
  }
  box.sent.advance();
}

void LocalGroup::receive(int from, int to, MutableBytes data) {
  Mailbox& box = mailbox(from, to);
  std::vector<std::byte> message;
  for (;;) {
    const std::uint32_t seen = box.sent.count();
    if (state_->has_failed()) leave();
    {
      const std::lock_guard lock(box.mutex);
      if (!box.messages.empty()) {
        message = std::move(box.messages.front());
        box.messages.pop_front();
        break;
      }
    }
    wait_for(from, box.sent, seen, "a message");
  }
  if (message.size() != data.size()) {
    state_->fail(world_rank(from), concat("it sent ", message.size(), " bytes in group ", members_.name, " where rank ",
                                          world_rank(to), " expects ", data.size()));
    leave();
  }
  if (!data.empty()) std::memcpy(data.data(), message.data(), data.size());
}

void LocalGroup::wake() noexcept {
  for (std::size_t i = 0; i < members_.ranks.size(); ++i) places_[i].meetings.advance();
  for (std::size_t i = 0; i < members_.ranks.size() * members_.ranks.size(); ++i) mailboxes_[i].sent.advance();
}

void LocalGroup::leave() {
  while (readers_.load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
  state_->throw_failure();
}

}  // namespace lamella::comm
