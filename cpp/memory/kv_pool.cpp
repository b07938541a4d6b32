#include "memory/kv_pool.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "plan/kv_groups.h"

namespace lamella {
namespace {

/// Bytes of one block of a state buffer, whose first dimension counts blocks.
std::size_t block_bytes(Buffer state) {
  state.shape.front() = fixed(1);
  return static_cast<std::size_t>(byte_count(state, {}));
}

}  // namespace

KvBlockPool::KvBlockPool(std::int64_t blocks)
    : blocks_(static_cast<std::size_t>(blocks)),
      empty_(static_cast<std::size_t>(blocks)),
      buckets_(std::bit_ceil(2 * static_cast<std::size_t>(blocks) + 1), none) {
  std::iota(empty_.rbegin(), empty_.rend(), 0);
}

// ---- taking and giving back ------------------------------------------------------------------------------------------

bool KvBlockPool::take(std::int64_t count, std::vector<std::int32_t>& blocks) {
  if (count > available()) return false;
  blocks.reserve(blocks.size() + static_cast<std::size_t>(count));  // from here on nothing fails
  for (std::int64_t i = 0; i < count; ++i) {
    if (empty_.empty()) {
      const std::int32_t victim = oldest_;
      stop_keeping(victim);
      unpublish(victim);
      empty_.push_back(victim);  // has had room for all blocks from the start
    }
    blocks.push_back(empty_.back());
    empty_.pop_back();
    hold(blocks.back());
  }
  return true;
}

void KvBlockPool::give_back(std::vector<std::int32_t>& blocks) noexcept {
  while (!blocks.empty()) {  // the last block first: it is kept, and so forgotten, before those that lead to it
    const std::int32_t block = blocks.back();
    blocks.pop_back();
    give_back(block);
  }
}

void KvBlockPool::give_back(std::int32_t block) noexcept {
  if (--at(block).holders > 0) return;
  --used_;
  if (is_published(block)) {
    keep(block);
  } else {
    empty_.push_back(block);
  }
}

void KvBlockPool::hold(std::int32_t block) noexcept {
  if (++at(block).holders == 1) ++used_;
}

void KvBlockPool::keep(std::int32_t block) noexcept {
  at(block).older = newest_;
  at(block).newer = none;
  (newest_ == none ? oldest_ : at(newest_).newer) = block;
  newest_ = block;
  ++kept_;
}

void KvBlockPool::stop_keeping(std::int32_t block) noexcept {
  const Block& leaving = at(block);
  (leaving.older == none ? oldest_ : at(leaving.older).newer) = leaving.newer;
  (leaving.newer == none ? newest_ : at(leaving.newer).older) = leaving.older;
  --kept_;
}

// ---- sharing ---------------------------------------------------------------------------------------------------------

std::int32_t& KvBlockPool::bucket(PrefixId parent, std::span<const std::int32_t> tokens) noexcept {
  std::uint64_t hash = parent;
  for (const std::int32_t token : tokens) {
    hash = (hash ^ static_cast<std::uint32_t>(token)) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 29;
  }
  return buckets_[hash & (buckets_.size() - 1)];
}

std::int32_t& KvBlockPool::bucket(PrefixId prefix, std::size_t group) noexcept {
  std::uint64_t hash = (prefix * most_kv_groups + group) * 0x9E3779B97F4A7C15U;
  hash ^= hash >> 29;
  return buckets_[hash & (buckets_.size() - 1)];
}

std::int32_t KvBlockPool::find(PrefixId parent, std::span<const std::int32_t> tokens) noexcept {
  std::int32_t block = bucket(parent, tokens);
  while (block != none &&
         (at(block).group != 0 || at(block).parent != parent || !std::ranges::equal(at(block).tokens, tokens)))
    block = at(block).next_in_bucket;
  return block;
}

PrefixId KvBlockPool::reuse(std::span<const std::int32_t> tokens, std::int64_t most,
                            std::vector<std::int32_t>& blocks) {
  PrefixId prefix = empty_prefix;
  const auto full = static_cast<std::int64_t>(tokens.size()) / kv_block_tokens;
  for (std::int64_t i = 0; i < std::min(most, full); ++i) {
    const std::int32_t block =
        find(prefix, tokens.subspan(static_cast<std::size_t>(i * kv_block_tokens), kv_block_tokens));
    if (block == none) break;
    blocks.push_back(share(block));
    prefix = at(block).prefix;
  }
  return prefix;
}

std::int32_t KvBlockPool::share(std::int32_t block) noexcept {
  if (at(block).holders == 0) stop_keeping(block);
  hold(block);
  return block;
}

std::optional<PrefixId> KvBlockPool::prefix(std::span<const std::int32_t> tokens, std::int64_t blocks) noexcept {
  PrefixId prefix = empty_prefix;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int32_t block =
        find(prefix, tokens.subspan(static_cast<std::size_t>(i * kv_block_tokens), kv_block_tokens));
    if (block == none) return std::nullopt;
    prefix = at(block).prefix;
  }
  return prefix;
}

PrefixId KvBlockPool::publish(std::int32_t block, PrefixId parent, std::span<const std::int32_t> tokens) noexcept {
  if (const std::int32_t same = find(parent, tokens); same != none) return at(same).prefix;
  Block& own = at(block);
  own.group = 0;
  own.prefix = next_prefix_++;
  own.parent = parent;
  std::ranges::copy(tokens, own.tokens);
  link(block, bucket(parent, tokens));
  return own.prefix;
}

std::int32_t KvBlockPool::find_companion(PrefixId prefix, std::size_t group) noexcept {
  std::int32_t block = bucket(prefix, group);
  while (block != none && (at(block).group != group || at(block).prefix != prefix)) block = at(block).next_in_bucket;
  return block;
}

void KvBlockPool::publish_companion(std::int32_t block, PrefixId prefix, std::size_t group) noexcept {
  if (find_companion(prefix, group) != none) return;
  at(block).group = static_cast<std::uint32_t>(group);
  at(block).prefix = prefix;
  link(block, bucket(prefix, group));
}

void KvBlockPool::link(std::int32_t block, std::int32_t& bucket) noexcept {
  at(block).next_in_bucket = bucket;
  bucket = block;
}

void KvBlockPool::unpublish(std::int32_t block) noexcept {
  Block& own = at(block);
  std::int32_t* link = own.group == 0 ? &bucket(own.parent, own.tokens) : &bucket(own.prefix, own.group);
  while (*link != block) link = &at(*link).next_in_bucket;
  *link = own.next_in_bucket;
  own.prefix = own.parent = empty_prefix;
}

std::size_t KvMemory::bytes_per_block(const Plan& plan) {
  std::size_t bytes = 0;
  for (const Buffer& buffer : plan.buffers)
    if (buffer.kind == BufferKind::state) bytes += block_bytes(buffer);
  return bytes;
}

KvMemory::KvMemory(const Plan& plan, std::string_view purpose) {
  std::size_t bytes = 0;
  for (const Buffer& buffer : plan.buffers) {
    if (buffer.kind != BufferKind::state) continue;
    states_.emplace(buffer.name, State{bytes, block_bytes(buffer)});
    bytes = checked_add(bytes, static_cast<std::size_t>(byte_count(buffer, plan.bounds)), purpose);
  }
  memory_ = Allocation(bytes, purpose);
}

std::byte* KvMemory::data(const std::string& state) const {
  const auto found = states_.find(state);
  check(found != states_.end(), "no KV state ", state);
  return memory_.data() + found->second.offset;
}

void KvMemory::clear(std::span<const std::int32_t> blocks) noexcept {
  for (const auto& [name, state] : states_) {
    for (const std::int32_t block : blocks)
      std::memset(memory_.data() + state.offset + static_cast<std::size_t>(block) * state.block_bytes, 0,
                  state.block_bytes);
  }
}

}  // namespace lamella
