// The memory plan: where each buffer of a plan lies in one allocation, chosen by liveness.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace lamella {

/// Where a buffer lies and when it is alive, in op numbers; states lie in the KV pool and have no place here.
struct Placement {
  BufferId buffer{};
  std::int64_t offset = 0;
  std::int64_t bytes = 0;  // for the largest step, rounded up to the alignment
  std::size_t first = 0;   // op that defines it; inputs: 0
  std::size_t last = 0;    // op that reads it last; outputs: the number of ops, beyond the last
};

struct BufferPlan {
  std::vector<Placement> placements;  // by buffer, states left out
  std::int64_t bytes = 0;             // of the one allocation
  std::int64_t bytes_without_reuse = 0;

  [[nodiscard]] const Placement* find(BufferId buffer) const noexcept;
};

/// Cache-line alignment of every buffer, which is also the widest vector.
inline constexpr std::int64_t buffer_alignment = 64;

/// Places every buffer at the plan's bounds: largest first, each at the lowest offset that no buffer alive at the same
/// time covers. An op's inputs and outputs never overlap.
[[nodiscard]] BufferPlan plan_buffers(const Plan& plan);

/// One line a buffer: name, shape, bytes, offset and life.
[[nodiscard]] std::string to_table(const Plan& plan, const BufferPlan& buffers);

}  // namespace lamella
