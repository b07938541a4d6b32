#include "memory/kv_pool.h"

#include <cstring>
#include <numeric>

#include "base/check.h"

namespace lamella {
namespace {

/// Bytes of one block of a state buffer, whose first dimension counts blocks.
std::size_t block_bytes(Buffer state) {
  state.shape.front() = fixed(1);
  return static_cast<std::size_t>(byte_count(state, {}));
}

}  // namespace

KvBlockPool::KvBlockPool(std::int64_t blocks) : total_(blocks), free_(static_cast<std::size_t>(blocks)) {
  std::iota(free_.rbegin(), free_.rend(), 0);
}

bool KvBlockPool::take(std::int64_t count, std::vector<std::int32_t>& blocks) {
  check(static_cast<std::int64_t>(free_.size()) <= total_, "more KV blocks came back than were taken: ", free_.size(),
        " of ", total_);
  if (count > static_cast<std::int64_t>(free_.size())) return false;
  blocks.reserve(blocks.size() + static_cast<std::size_t>(count));  // from here on nothing fails
  for (std::int64_t i = 0; i < count; ++i) {
    blocks.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvBlockPool::give_back(std::vector<std::int32_t>& blocks) noexcept {
  free_.insert(free_.end(), blocks.rbegin(), blocks.rend());  // has had room for all blocks from the start
  blocks.clear();
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

void KvMemory::clear(const std::vector<std::int32_t>& blocks) {
  for (const auto& [name, state] : states_) {
    for (const std::int32_t block : blocks)
      std::memset(memory_.data() + state.offset + static_cast<std::size_t>(block) * state.block_bytes, 0,
                  state.block_bytes);
  }
}

}  // namespace lamella
