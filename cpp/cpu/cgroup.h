// What the control groups that hold this process allow it: containers set limits there that the machine's own figures
// do not show.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace lamella::cpu {

struct CgroupLimits {
  std::optional<double> cores;  // CPU quota over its period
  std::optional<std::uint64_t> memory_left;  // bytes: limit less what cannot be reclaimed
};

/// The tightest limits along the process's groups and their parents, versions 1 and 2. `root` stands before /proc and
/// /sys, for tests. Files that are absent or unreadable limit nothing.
[[nodiscard]] CgroupLimits read_cgroup_limits(const std::filesystem::path& root = "/");

}  // namespace lamella::cpu
