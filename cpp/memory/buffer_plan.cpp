#include "memory/buffer_plan.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

#include "base/check.h"

namespace lamella {
namespace {

/// The life of every buffer that lies in the allocation.
std::vector<Placement> lives(const Plan& plan) {
  std::vector<Placement> all;
  std::vector<bool> seen(plan.buffers.size());
  for (std::size_t i = 0; i < plan.buffers.size(); ++i) {
    const Buffer& buffer = plan.buffers[i];
    const std::int64_t bytes = buffer.kind == BufferKind::state ? 0 : byte_count(buffer, plan.bounds);
    all.push_back({.buffer = BufferId{static_cast<std::uint32_t>(i)},
                   .bytes = (bytes + buffer_alignment - 1) / buffer_alignment * buffer_alignment});
    seen[i] = buffer.kind == BufferKind::input;
  }
  for (std::size_t number = 0; number < plan.ops.size(); ++number)
    for (const std::vector<BufferId>* operands : {&plan.ops[number].inputs, &plan.ops[number].outputs})
      for (const BufferId id : *operands) {
        const auto i = static_cast<std::size_t>(id);
        if (!seen[i]) all[i].first = number;
        seen[i] = true;
        all[i].last = number;
      }
  for (Placement& life : all)
    if (plan.buffer(life.buffer).kind == BufferKind::output) life.last = plan.ops.size();
  std::erase_if(all, [&](const Placement& life) { return plan.buffer(life.buffer).kind == BufferKind::state; });
  return all;
}

/// Placements by the ops during which they are alive, so that placing a buffer looks at its neighbours in time only.
class Timeline {
 public:
  explicit Timeline(std::size_t ops) : alive_(ops + 1) {}

  void add(const Placement& placed) {
    for (std::size_t op = placed.first; op <= placed.last; ++op) alive_[op].push_back(placed);
  }
  /// Every placement whose life overlaps that of `life`, once, by offset.
  [[nodiscard]] std::vector<Placement> neighbours(const Placement& life) const {
    std::vector<Placement> found;
    for (std::size_t op = life.first; op <= life.last; ++op)
      for (const Placement& placed : alive_[op])
        if (op == life.first || placed.first == op) found.push_back(placed);  // alive from the start, or born meanwhile
    std::ranges::sort(found, {}, &Placement::offset);
    return found;
  }

 private:
  std::vector<std::vector<Placement>> alive_;
};

}  // namespace

const Placement* BufferPlan::find(BufferId buffer) const noexcept {
  const auto number = [](const Placement& placement) { return static_cast<std::uint32_t>(placement.buffer); };
  const auto found = std::ranges::lower_bound(placements, static_cast<std::uint32_t>(buffer), {}, number);
  return found == placements.end() || found->buffer != buffer ? nullptr : &*found;
}

BufferPlan plan_buffers(const Plan& plan) {
  BufferPlan result;
  result.placements = lives(plan);
  std::ranges::stable_sort(result.placements, std::ranges::greater{}, &Placement::bytes);
  Timeline timeline(plan.ops.size());
  for (Placement& next : result.placements) {
    // The first gap between the neighbours that is wide enough.
    for (const Placement& neighbour : timeline.neighbours(next)) {
      if (next.offset + next.bytes <= neighbour.offset) break;
      next.offset = std::max(next.offset, neighbour.offset + neighbour.bytes);
    }
    result.bytes = std::max(result.bytes, next.offset + next.bytes);
    result.bytes_without_reuse += next.bytes;
    timeline.add(next);
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
