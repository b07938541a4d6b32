#include "memory/kv_cache.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "base/check.h"
#include "plan/kv_groups.h"

namespace lamella {
namespace {

constexpr std::int32_t none = KvBlockPool::none;

/// Of a sequence whose chain of prefixes is broken: nothing of it can be shared any more.
constexpr PrefixId lost_prefix = std::numeric_limits<PrefixId>::max();

std::size_t index_of(std::int64_t place) noexcept { return static_cast<std::size_t>(place); }
std::int64_t size_of(const std::vector<std::int32_t>& places) noexcept {
  return static_cast<std::int64_t>(places.size());
}

/// Places that a group with this window holds at once at most: from the first that the oldest computed token's successor
/// sees to the last that a step in flight writes, wherever in a block either falls.
std::int64_t places_of_window(std::int64_t window, std::int64_t tokens_in_flight) noexcept {
  return (window - 1 + tokens_in_flight + kv_block_tokens - 2) / kv_block_tokens + 1;
}

}  // namespace

// ---- retention -------------------------------------------------------------------------------------------------------

std::int64_t KvRetention::first_place(std::size_t group, std::int64_t position) const noexcept {
  const std::int64_t window = windows[group];
  return window == 0 || position < window ? 0 : (position + 1 - window) / kv_block_tokens;
}

std::int64_t KvRetention::end_place(std::size_t group, std::int64_t begin, std::int64_t end) const noexcept {
  const std::int64_t places = KvBlockPool::blocks_for(end);
  if (windows[group] == 0) return places;
  return std::min(places, first_place(group, begin) + places_of_window(windows[group], tokens_in_flight));
}

std::int64_t KvRetention::blocks_between(std::int64_t begin, std::int64_t end) const noexcept {
  std::int64_t blocks = 0;
  for (std::size_t group = 0; group < windows.size(); ++group)
    blocks += end_place(group, begin, end) - first_place(group, begin);
  return blocks;
}

std::int64_t KvRetention::most_blocks(std::int64_t tokens) const noexcept { return blocks_between(0, tokens); }

std::int64_t KvRetention::tokens_within(std::int64_t blocks, std::int64_t most) const noexcept {
  if (most_blocks(most) <= blocks) return most;
  std::int64_t fit = 0, too_many = KvBlockPool::blocks_for(most);  // places
  while (too_many - fit > 1) {
    const std::int64_t middle = fit + (too_many - fit) / 2;
    (most_blocks(middle * kv_block_tokens) <= blocks ? fit : too_many) = middle;
  }
  return fit * kv_block_tokens;
}

// ---- taking ----------------------------------------------------------------------------------------------------------

KvCache::KvCache(KvBlockPool& pool, KvRetention retention, Scrub scrub)
    : pool_(pool), retention_(std::move(retention)), scrub_(std::move(scrub)) {
  check(!retention_.windows.empty() && retention_.windows.size() <= most_kv_groups, retention_.windows.size(),
        " KV groups");
}

KvHolding KvCache::reserve(std::size_t groups, std::int64_t tokens) {
  KvHolding held;
  held.groups.resize(groups);
  for (std::vector<std::int32_t>& places : held.groups) places.reserve(index_of(KvBlockPool::blocks_for(tokens)));
  return held;
}

std::int64_t KvCache::missing(const KvHolding& held, std::int64_t begin, std::int64_t end) const noexcept {
  std::int64_t blocks = 0;
  for (std::size_t group = 0; group < held.groups.size(); ++group) {
    const std::int64_t from = std::max(size_of(held.groups[group]), retention_.first_place(group, begin));
    blocks += std::max<std::int64_t>(0, retention_.end_place(group, begin, end) - from);
  }
  return blocks;
}

bool KvCache::hold(KvHolding& held, std::int64_t begin, std::int64_t end) {
  if (missing(held, begin, end) > pool_.available()) return false;
  for (std::size_t group = 0; group < held.groups.size(); ++group) {
    std::vector<std::int32_t>& places = held.groups[group];
    const std::int64_t to = retention_.end_place(group, begin, end);
    if (size_of(places) >= to) continue;
    if (const std::int64_t first = retention_.first_place(group, begin); size_of(places) < first)
      places.resize(index_of(first), none);
    check(pool_.take(to - size_of(places), places), "the pool lacks blocks that it had");
  }
  return true;
}

std::int64_t KvCache::may_want(const KvHolding& held, std::int64_t tokens) const noexcept {
  return std::ranges::count_if(held.groups, [&](const std::vector<std::int32_t>& places) {
    return size_of(places) < KvBlockPool::blocks_for(tokens);
  });
}

// ---- sharing ---------------------------------------------------------------------------------------------------------

/// Of a chain of group 0's blocks, how many places can be gone on behind: every other group keeps what is read there.
std::int64_t KvCache::reusable(std::span<const std::int32_t> chain) noexcept {
  std::array<std::int64_t, most_kv_groups> run{};  // places in a row, up to the one at hand, that the group keeps
  std::int64_t best = 0;
  for (std::int64_t place = 0; place < static_cast<std::int64_t>(chain.size()); ++place) {
    bool all = true;
    for (std::size_t group = 1; group < retention_.windows.size(); ++group) {
      const bool kept = pool_.find_companion(pool_.prefix_of(chain[index_of(place)]), group) != none;
      run[group] = kept ? run[group] + 1 : 0;
      all = all && run[group] > place - retention_.first_place(group, (place + 1) * kv_block_tokens);
    }
    if (all) best = place + 1;
  }
  return best;
}

std::int64_t KvCache::reuse(std::span<const std::int32_t> tokens, std::int64_t most, KvHolding& held) {
  std::vector<std::int32_t>& chain = held.groups.front();
  held.prefix = pool_.reuse(tokens, most, chain);
  const std::int64_t reused = held.groups.size() == 1 ? size_of(chain) : reusable(chain);
  if (reused < size_of(chain)) {
    give_back(chain, reused, all_sound);
    held.prefix = chain.empty() ? empty_prefix : pool_.prefix_of(chain.back());
  }
  const std::int64_t position = reused * kv_block_tokens;
  for (std::size_t group = 1; group < held.groups.size(); ++group) {
    std::vector<std::int32_t>& places = held.groups[group];
    places.resize(index_of(std::min(reused, retention_.first_place(group, position))), none);
    for (std::int64_t place = size_of(places); place < reused; ++place)
      places.push_back(pool_.share(pool_.find_companion(pool_.prefix_of(chain[index_of(place)]), group)));
  }
  held.published = reused;
  leave(held, position, all_sound);
  return reused;
}

void KvCache::publish(KvHolding& held, std::span<const std::int32_t> tokens) noexcept {
  const std::size_t place = index_of(held.published++);
  if (held.prefix == lost_prefix) return;
  if (held.groups.front()[place] == none) {  // its window left before a row of logits showed it to be sound
    held.prefix = lost_prefix;
    return;
  }
  held.prefix = pool_.publish(held.groups.front()[place], held.prefix, tokens);
  for (std::size_t group = 1; group < held.groups.size(); ++group)
    if (held.groups[group][place] != none) pool_.publish_companion(held.groups[group][place], held.prefix, group);
}

// ---- giving back -----------------------------------------------------------------------------------------------------

/// Places `end` and behind, the last first.
void KvCache::give_back(std::vector<std::int32_t>& places, std::int64_t end, std::int64_t sound) noexcept {
  while (size_of(places) > end) {
    const std::int32_t block = places.back();
    if (block != none) {
      if (size_of(places) > sound) scrub_({&block, 1});
      pool_.give_back(block);
    }
    places.pop_back();
  }
}

void KvCache::leave(KvHolding& held, std::int64_t position, std::int64_t sound) noexcept {
  for (std::size_t group = 0; group < held.groups.size(); ++group) {
    std::vector<std::int32_t>& places = held.groups[group];
    const std::int64_t left = std::min(retention_.first_place(group, position), size_of(places));
    for (std::int64_t place = left - 1; place >= 0; --place) {
      std::int32_t& block = places[index_of(place)];
      if (block == none) break;  // and so are all before it
      if (place >= sound) scrub_({&block, 1});
      pool_.give_back(std::exchange(block, none));
    }
  }
}

std::int64_t KvCache::truncate(KvHolding& held, std::span<const std::int32_t> tokens, std::int64_t sound) noexcept {
  auto keep = static_cast<std::int64_t>(tokens.size());
  const std::int64_t last = keep / kv_block_tokens;
  for (const std::vector<std::int32_t>& places : held.groups)
    if (keep % kv_block_tokens != 0 && places[index_of(last)] != none && pool_.is_published(places[index_of(last)]))
      keep = last * kv_block_tokens;
  bool complete = true;
  for (std::size_t group = 0; group < held.groups.size(); ++group)
    for (std::int64_t place = retention_.first_place(group, keep); place < KvBlockPool::blocks_for(keep); ++place)
      complete = complete && held.groups[group][index_of(place)] != none;
  if (!complete) keep = 0;
  for (std::vector<std::int32_t>& places : held.groups) give_back(places, KvBlockPool::blocks_for(keep), sound);
  if (held.published > keep / kv_block_tokens) {
    held.published = keep / kv_block_tokens;
    held.prefix = pool_.prefix(tokens, held.published).value_or(lost_prefix);
  }
  return keep;
}

void KvCache::release(KvHolding& held, std::int64_t sound) noexcept {
  for (std::vector<std::int32_t>& places : held.groups) give_back(places, 0, sound);
  held.prefix = empty_prefix;
  held.published = 0;
}

}  // namespace lamella
