#include "memory/buffer_plan.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

#include "base/check.h"

namespace lamella {
namespace {

bool overlap_in_time(const Placement& a, const Placement& b) noexcept { return a.first <= b.last && b.first <= a.last; }

/// The life of every buffer that lies in the allocation.
std::vector<Placement> lives(const Plan& plan) {
  std::vector<Placement> lives;
  for (std::size_t i = 0; i < plan.buffers.size(); ++i) {
    const Buffer& buffer = plan.buffers[i];
    if (buffer.kind == BufferKind::state) continue;
    const std::int64_t bytes = byte_count(buffer, plan.bounds);
    Placement life{.buffer = BufferId{static_cast<std::uint32_t>(i)},
                   .bytes = (bytes + buffer_alignment - 1) / buffer_alignment * buffer_alignment};
    bool seen = buffer.kind == BufferKind::input;
    for (std::size_t op = 0; op < plan.ops.size(); ++op) {
      const auto names = [&](const std::vector<BufferId>& ids) {
        return std::ranges::find(ids, life.buffer) != ids.end();
      };
      if (!names(plan.ops[op].inputs) && !names(plan.ops[op].outputs)) continue;
      if (!seen) life.first = op;
      seen = true;
      life.last = op;
    }
    if (buffer.kind == BufferKind::output) life.last = plan.ops.size();
    lives.push_back(life);
  }
  return lives;
}

}  // namespace

const Placement* BufferPlan::find(BufferId buffer) const noexcept {
  const auto found = std::ranges::find(placements, buffer, &Placement::buffer);
  return found == placements.end() ? nullptr : &*found;
}

BufferPlan plan_buffers(const Plan& plan) {
  BufferPlan result;
  std::vector<Placement> waiting = lives(plan);
  std::ranges::stable_sort(waiting, std::ranges::greater{}, &Placement::bytes);
  for (Placement& next : waiting) {
    // Neighbours in time, by offset: the first gap between them that is wide enough.
    std::vector<const Placement*> neighbours;
    for (const Placement& placed : result.placements)
      if (overlap_in_time(placed, next)) neighbours.push_back(&placed);
    std::ranges::sort(neighbours, {}, [](const Placement* p) { return p->offset; });
    for (const Placement* neighbour : neighbours) {
      if (next.offset + next.bytes <= neighbour->offset) break;
      next.offset = std::max(next.offset, neighbour->offset + neighbour->bytes);
    }
    result.bytes = std::max(result.bytes, next.offset + next.bytes);
    result.bytes_without_reuse += next.bytes;
    result.placements.push_back(next);
  }
  std::ranges::sort(result.placements, {}, [](const Placement& p) { return static_cast<std::uint32_t>(p.buffer); });
  return result;
}

std::string to_table(const Plan& plan, const BufferPlan& buffers) {
  std::ostringstream out;
  out << std::left << std::setw(24) << "buffer" << std::setw(16) << "shape" << std::setw(10) << "type" << std::right
      << std::setw(14) << "bytes" << std::setw(14) << "offset" << "  alive\n";
  for (const Placement& p : buffers.placements) {
    const Buffer& buffer = plan.buffer(p.buffer);
    out << std::left << std::setw(24) << buffer.name << std::setw(16) << shape_text(buffer) << std::setw(10)
        << to_string(buffer.type) << std::right << std::setw(14) << p.bytes << std::setw(14) << p.offset << "  "
        << p.first << ".." << p.last << "\n";
  }
  out << "one allocation of " << buffers.bytes << " bytes; without reuse " << buffers.bytes_without_reuse << "\n";
  return std::move(out).str();
}

}  // namespace lamella
