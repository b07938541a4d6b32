#include "comm/mpi_group.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/checksum.h"

namespace lamella::comm {
namespace {

/// All first messages of a rank together, and the most that one brings. About what a network moves while a message
/// travels: 20 us at 3 GB/s.
constexpr std::size_t all_first_bytes = 65536, most_first_bytes = 32768, least_first_bytes = 256;
/// A part is long enough that its message's time does not count, and short enough to be in the cache when it is copied.
constexpr std::size_t most_part_bytes = std::size_t{256} << 10U, least_part_bytes = std::size_t{16} << 10U,
                      all_part_bytes = std::size_t{2} << 20U;

std::size_t whole_lines(std::size_t bytes) { return bytes / 64 * 64; }

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

}  // namespace

MpiGroup::MpiGroup(GroupMembers members, std::shared_ptr<MpiState> state, int tag)
    : members_(std::move(members)), state_(std::move(state)), tag_(tag) {
  const auto self = std::ranges::find(members_.ranks, state_->rank());
  rank_ = static_cast<int>(self - members_.ranks.begin());
  const std::size_t others = std::max<std::size_t>(members_.ranks.size() - 1, 1);
  first_bytes_ = whole_lines(std::clamp(all_first_bytes / others, least_first_bytes, most_first_bytes));
  part_bytes_ = whole_lines(std::clamp(all_part_bytes / others, least_part_bytes, most_part_bytes));
  Xxh64 digest;
  digest.update(std::as_bytes(std::span(members_.name)));
  digest.update(std::as_bytes(std::span(members_.ranks)));
  digest_ = digest.digest();
  sent_.resize(members_.ranks.size());
  received_.resize(members_.ranks.size());
}

MpiGroup::~MpiGroup() {
  if (!requests_[0].has_pending() && !requests_[1].has_pending() && !message_.has_pending()) return;
  static_cast<void>(first_.release());
  static_cast<void>(parts_.release());
}

Call MpiGroup::Header::call() const noexcept {
  return {.kind = kind, .type = type, .reduction = reduction, .root = root, .bytes = bytes};
}

MutableBytes MpiGroup::first(bool incoming, int member) const noexcept {
  const std::size_t slot = (incoming ? members_.ranks.size() : 0) + static_cast<std::size_t>(member);
  return {first_.get() + slot * slot_bytes(), slot_bytes()};
}

MutableBytes MpiGroup::part(bool incoming, int member, std::size_t round) const noexcept {
  const std::size_t slot = ((incoming ? members_.ranks.size() : 0) + static_cast<std::size_t>(member)) * 2 + round % 2;
  return {parts_.get() + slot * part_bytes_, part_bytes_};
}

void MpiGroup::take_first() {
  if (!first_) first_ = std::make_unique_for_overwrite<std::byte[]>(2 * members_.ranks.size() * slot_bytes());
}

void MpiGroup::take_parts() {
  if (!parts_) parts_ = std::make_unique_for_overwrite<std::byte[]>(4 * members_.ranks.size() * part_bytes_);
}

/// The header and as much as fits go in one message, the rest in parts: the receiver learns first how much there is.
void MpiGroup::send(Bytes data, int to) {
  state_->look();
  const auto member = static_cast<std::size_t>(to);
  const MessageHeader header{.group = digest_, .sequence = sent_[member]++, .bytes = data.size()};
  for (std::size_t begin = 0, end = std::min(data.size(), first_bytes_);;) {
    const std::size_t front = begin == 0 ? sizeof header : 0;
    MpiService::Buffer buffer = std::make_unique_for_overwrite<std::byte[]>(front + (end - begin));
    copy_bytes(buffer.get(), &header, front);
    copy_bytes(buffer.get() + front, data.data() + begin, end - begin);
    const Bytes message{buffer.get(), front + (end - begin)};
    state_->send_away(std::move(buffer), message, world_rank(to), tag_ + 1);
    if (end == data.size()) return;
    begin = end;
    end = std::min(data.size(), begin + part_bytes_);
  }
}

void MpiGroup::receive(MutableBytes data, int from) {
  state_->look();
  take_first();
  const auto member = static_cast<std::size_t>(from);
  // The slot for the first message of a collective: none is on its way while this is called.
  MutableBytes slot = first(true, from);
  const auto receive_into = [&](MutableBytes place) {
    message_.clear();
    message_.receive(state_->data(), place, world_rank(from), tag_ + 1);
    state_->wait_for(message_, "a message", members_.name, state_->deadline(), [] {});
    return message_.received(0);
  };
  const std::size_t bytes = receive_into(slot);
  MessageHeader header;
  std::memcpy(&header, slot.data(), sizeof header);
  if (bytes < sizeof header || header.group != digest_ || header.sequence != received_[member]++) {
    state_->fail(world_rank(from),
                 concat("it sent what is no message for group ", members_.name, "; ranks must form the same groups"));
    state_->throw_failure();
  }
  if (header.bytes != data.size()) {
    state_->fail(world_rank(from), concat("it sent ", header.bytes, " bytes in group ", members_.name, " where ",
                                          state_->name_of(world_rank(rank_)), " expects ", data.size()));
    state_->throw_failure();
  }
  std::size_t done = bytes - sizeof header;
  copy_bytes(data.data(), slot.data() + sizeof header, done);
  if (done < data.size()) take_parts();
  while (done < data.size()) {
    const MutableBytes place = part(true, from, 0);
    const std::size_t next = receive_into(place);
    check(next > 0 && next <= data.size() - done, "a part of ", next, " bytes where ", data.size() - done, " are left");
    copy_bytes(data.data() + done, place.data(), next);
    done += next;
  }
}

MpiExchange::MpiExchange(MpiGroup& group, const Exchanged& what, std::chrono::milliseconds deadline)
    : group_(group), what_(what), deadline_(deadline) {
  group_.state().look();
  group_.take_first();
  std::size_t longest = 0;
  for (int member = 0; member < group_.size(); ++member)
    if (is_partner(member)) longest = std::max({longest, outgoing(member).size(), incoming(member)});
  if (longest > group_.first_bytes_) {
    rounds_ += (longest - group_.first_bytes_ + group_.part_bytes_ - 1) / group_.part_bytes_;
    group_.take_parts();
  }
  post_first();
}

bool MpiExchange::next() {
  if (has_begun_) ++round_;
  has_begun_ = true;
  if (round_ == rounds_) return false;
  // Parts are long when it is known that all expect them: after the first round.
  if (round_ > 0 && round_ + 1 < rounds_) post(round_ + 1);
  wait(round_);
  if (round_ == 0) {
    compare_calls();
    compare_lengths();
    ++group_.exchanges_;
    if (rounds_ > 1) post(1);
  }
  return true;
}

bool MpiExchange::is_partner(int member) const noexcept {
  return member != group_.rank_ && (what_.root < 0 || what_.root == group_.rank_ || what_.root == member);
}

Bytes MpiExchange::outgoing(int member) const noexcept {
  if (what_.outgoing.empty()) return {};
  return what_.outgoing[what_.outgoing.size() == 1 ? 0 : static_cast<std::size_t>(member)];
}

std::size_t MpiExchange::incoming(int member) const noexcept {
  if (what_.incoming.empty()) return 0;
  return what_.incoming[what_.incoming.size() == 1 ? 0 : static_cast<std::size_t>(member)];
}

std::size_t MpiExchange::begin_of(std::size_t round) const noexcept {
  return round == 0 ? 0 : group_.first_bytes_ + (round - 1) * group_.part_bytes_;
}

std::size_t MpiExchange::bytes_of(std::size_t round, std::size_t all) const noexcept {
  const std::size_t begin = begin_of(round), most = round == 0 ? group_.first_bytes_ : group_.part_bytes_;
  return begin >= all ? 0 : std::min(all - begin, most);
}

Bytes MpiExchange::from(int member) const {
  if (!is_partner(member)) return {};
  const std::size_t bytes = bytes_of(round_, incoming(member));
  return round_ == 0 ? Bytes(group_.first(true, member)).subspan(sizeof(MpiGroup::Header), bytes)
                     : Bytes(group_.part(true, member, round_)).first(bytes);
}

/// Every rank sends its first message to all partners and expects theirs, whatever it calls and however long it is: so
/// those who call something else learn of it.
void MpiExchange::post_first() {
  MpiRequests& requests = group_.requests_[0];
  requests.clear();
  for (int member = 0; member < group_.size(); ++member)
    if (is_partner(member))
      requests.receive(group_.state().data(), group_.first(true, member), group_.world_rank(member), group_.tag_);
  for (int member = 0; member < group_.size(); ++member) {
    if (!is_partner(member)) continue;
    const Bytes data = outgoing(member);
    const std::size_t bytes = bytes_of(0, data.size());
    const MpiGroup::Header header = own_header(data.size());
    const MutableBytes slot = group_.first(false, member);
    copy_bytes(slot.data(), &header, sizeof header);
    copy_bytes(slot.data() + sizeof header, data.data(), bytes);
    requests.send(group_.state().data(), slot.first(sizeof header + bytes), group_.world_rank(member), group_.tag_);
  }
}

void MpiExchange::post(std::size_t round) {
  MpiRequests& requests = group_.requests_[round % 2];
  requests.clear();
  for (int member = 0; member < group_.size(); ++member) {
    const std::size_t bytes = is_partner(member) ? bytes_of(round, incoming(member)) : 0;
    if (bytes > 0)
      requests.receive(group_.state().data(), group_.part(true, member, round).first(bytes), group_.world_rank(member),
                       group_.tag_);
  }
  int copied = -1;  // the member for whom it was, where all get the same
  for (int member = 0; member < group_.size(); ++member) {
    const Bytes data = is_partner(member) ? outgoing(member) : Bytes();
    const std::size_t bytes = bytes_of(round, data.size());
    if (bytes == 0) continue;
    const bool is_shared = what_.outgoing.size() == 1;
    if (!is_shared || copied < 0) {
      copied = member;
      copy_bytes(group_.part(false, copied, round).data(), data.data() + begin_of(round), bytes);
    }
    requests.send(group_.state().data(), group_.part(false, copied, round).first(bytes), group_.world_rank(member),
                  group_.tag_);
  }
}

void MpiExchange::wait(std::size_t round) {
  group_.state().wait_for(group_.requests_[round % 2], to_string(what_.call.kind), group_.members_.name, deadline_,
                          [&] {
                            if (round == 0) compare_calls();
                          });
}

MpiGroup::Header MpiExchange::header_from(int member) const {
  MpiGroup::Header header;
  std::memcpy(&header, group_.first(true, member).data(), sizeof header);
  return header;
}

MpiGroup::Header MpiExchange::own_header(std::size_t part) const noexcept {
  return {.group = group_.digest_,
          .sequence = group_.exchanges_,
          .shape = what_.shape,
          .bytes = what_.call.bytes,
          .part = part,
          .root = what_.call.root,
          .kind = what_.call.kind,
          .type = what_.call.type,
          .reduction = what_.call.reduction};
}

/// Of the partners whose first messages have come. All who see everyone's accuse the same rank: the first that calls
/// something else than the first member does.
void MpiExchange::compare_calls() {
  const MpiRequests& requests = group_.requests_[0];
  const MpiGroup::Header mine = own_header(0);
  std::vector<int> known;
  bool all_alike = true;
  std::size_t request = 0;  // receives were posted first, in order of the members
  for (int member = 0; member < group_.size(); ++member) {
    if (!is_partner(member)) continue;
    const std::size_t i = request++;
    if (!requests.is_done(i)) continue;
    if (requests.received(i) < sizeof(MpiGroup::Header)) accuse(member, "it sent what is no message of a collective");
    all_alike = all_alike && header_from(member).is_same_call(mine);
    known.push_back(member);
  }
  if (all_alike) return;
  if (what_.root >= 0 && what_.root != group_.rank_) group_.state().listen(deadline_ / 4);  // the root knows more
  known.push_back(group_.rank_);
  std::ranges::sort(known);
  const auto header_of = [&](int member) { return member == group_.rank_ ? mine : header_from(member); };
  const MpiGroup::Header first = header_of(known.front());
  for (const int member : known) {
    const MpiGroup::Header its = header_of(member);
    if (its.is_same_call(first)) continue;
    const std::string first_rank = group_.state().name_of(group_.world_rank(known.front()));
    const std::string& name = group_.members_.name;
    if (its.call() != first.call()) accuse(member, difference(its.call(), first.call(), name, first_rank));
    if (its.group == first.group && its.sequence == first.sequence)
      accuse(member, concat("its ", to_string(first.kind), " in group ", name,
                            " has other widths or rows than that of ", first_rank));
    accuse(member, concat("it is at call ", its.sequence, " of a group where ", first_rank, " is at call ",
                          first.sequence, " of group ", name, "; ranks must form the same groups in the same order"));
  }
}

void MpiExchange::compare_lengths() {
  std::size_t request = 0;
  for (int member = 0; member < group_.size(); ++member) {
    if (!is_partner(member)) continue;
    const std::size_t came = group_.requests_[0].received(request++), part = header_from(member).part;
    if (part == incoming(member) && came == sizeof(MpiGroup::Header) + bytes_of(0, part)) continue;
    accuse(member,
           concat("it sends ", group_.state().name_of(group_.world_rank(group_.rank_)),
                  " another number of bytes than the ", incoming(member), " expected in ", to_string(what_.call.kind)));
  }
}

void MpiExchange::accuse(int member, const std::string& cause) const {
  group_.state().fail(group_.world_rank(member), cause);
  group_.state().throw_failure();
}

}  // namespace lamella::comm
