#include "comm/local_group.h"

#include <cstring>
#include <thread>

#include "base/check.h"

namespace lamella::comm {

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
  check_members(members_, state_->ranks());
  places_ = std::make_unique<Place[]>(count);
  mailboxes_ = std::make_unique<Mailbox[]>(count * count);
  for (std::size_t i = 0; i < count; ++i) places_[i].staged = std::make_unique<std::byte[]>(2 * staged_bytes);
}

void LocalGroup::meet(int me, std::uint32_t meeting, const Shown& mine, std::chrono::milliseconds deadline) {
  if (state_->has_failed()) leave();
  Place& place = places_[static_cast<std::size_t>(me)];
  place.shown[meeting % 2] = mine;
  place.meetings.advance();
  // A member may be one meeting further on, never more. Counts wrap around.
  const auto has_come = [&](std::uint32_t seen) { return static_cast<std::int32_t>(seen - (meeting + 1)) >= 0; };
  const auto absent_after = [&](int first) {
    std::vector<std::string> ranks;
    for (int member = first + 1; member < size(); ++member)
      if (member != me && !has_come(places_[static_cast<std::size_t>(member)].meetings.count()))
        ranks.push_back(concat("rank ", world_rank(member)));
    return ranks;
  };
  for (int member = 0; member < size(); ++member) {
    if (member == me) continue;
    Epoch& others = places_[static_cast<std::size_t>(member)].meetings;
    for (std::uint32_t seen = others.count(); !has_come(seen); seen = others.count())
      wait_for(member, others, seen, {to_string(mine.call.kind), deadline}, [&] { return absent_after(member); });
  }
  if (state_->has_failed()) leave();  // which advances the counts too
  compare_calls(meeting);
}

void LocalGroup::compare_calls(std::uint32_t meeting) {
  const Call& first = shown(0, meeting).call;
  for (int member = 1; member < size(); ++member) {
    const Call& its = shown(member, meeting).call;
    if (first == its) continue;
    state_->fail(world_rank(member), difference(its, first, members_.name, concat("rank ", world_rank(0))));
    leave();
  }
}

template <typename Absent>
void LocalGroup::wait_for(int member, Epoch& epoch, std::uint32_t seen, const Wait& wait, const Absent& absent) {
  if (!epoch.wait_beyond_for(seen, patience_, wait.deadline))
    state_->fail(world_rank(member), absence(wait.what, members_.name, wait.deadline) + further_absent(absent()));
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
    wait_for(from, box.sent, seen, {"a message", state_->deadline()}, [] { return std::vector<std::string>(); });
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
