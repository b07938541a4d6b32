#include "cpu/cgroup.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

namespace lamella::cpu {
namespace {

namespace fs = std::filesystem;

template <typename Value>
std::optional<Value> read_value(const fs::path& file) {
  std::ifstream in(file);
  Value value;
  if (in >> value) return value;
  return std::nullopt;
}

/// The value beside `key` in a file of "key value" lines.
std::uint64_t read_entry(const fs::path& file, std::string_view key) {
  std::ifstream in(file);
  std::string name;
  std::uint64_t value = 0;
  while (in >> name >> value)
    if (name == key) return value;
  return 0;
}

template <typename Value>
void tighten(std::optional<Value>& limit, Value value) {
  limit = limit ? std::min(*limit, value) : value;
}

/// Version 2: "max 100000" or "150000 100000" in cpu.max, "max" or bytes in memory.max.
void read_v2(const fs::path& group, CgroupLimits& limits) {
  std::ifstream cpu(group / "cpu.max");
  double quota = 0.0, period = 0.0;
  if (cpu >> quota >> period && quota > 0.0 && period > 0.0) tighten(limits.cores, quota / period);
  if (const auto most = read_value<std::uint64_t>(group / "memory.max")) {
    const std::uint64_t used = read_value<std::uint64_t>(group / "memory.current").value_or(0);
    const std::uint64_t held = used - std::min(used, read_entry(group / "memory.stat", "inactive_file"));
    tighten(limits.memory_left, *most - std::min(*most, held));
  }
}

/// Version 1: a quota of -1 is none; "no limit" of memory is a number near 2^63, which limits nothing either.
void read_v1_cpu(const fs::path& group, CgroupLimits& limits) {
  const double quota = read_value<double>(group / "cpu.cfs_quota_us").value_or(-1.0);
  const double period = read_value<double>(group / "cpu.cfs_period_us").value_or(0.0);
  if (quota > 0.0 && period > 0.0) tighten(limits.cores, quota / period);
}
void read_v1_memory(const fs::path& group, CgroupLimits& limits) {
  if (const auto most = read_value<std::uint64_t>(group / "memory.limit_in_bytes")) {
    const std::uint64_t used = read_value<std::uint64_t>(group / "memory.usage_in_bytes").value_or(0);
    const std::uint64_t held = used - std::min(used, read_entry(group / "memory.stat", "total_inactive_file"));
    tighten(limits.memory_left, *most - std::min(*most, held));
  }
}

/// folder / path, without the separator that an empty path would leave at the end: where memory runs out while something
/// is appended to such a path, libstdc++ 12 destroys a component that it has not made.
fs::path under(const fs::path& folder, const fs::path& path) { return path.empty() ? folder : folder / path; }

bool lists(const std::string& comma_separated, std::string_view name) {
  std::istringstream in(comma_separated);
  for (std::string item; std::getline(in, item, ',');)
    if (item == name) return true;
  return false;
}

}  // namespace

CgroupLimits read_cgroup_limits(const fs::path& root) {
  CgroupLimits limits;
  std::ifstream groups(root / "proc/self/cgroup");
  // "0::/path" for version 2, "7:cpu,cpuacct:/path" for version 1.
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty(), cpu = lists(controllers, "cpu"), memory = lists(controllers, "memory");
    if (!unified && !cpu && !memory) continue;
    // A container often sees its own group as the mount's root while the path is the host's: the walk up ends there
    // either way.
    const fs::path mount = root / (unified ? "sys/fs/cgroup" : "sys/fs/cgroup/" + controllers);
    for (fs::path path = fs::path(line.substr(second + 1)).relative_path();; path = path.parent_path()) {
      const fs::path group = under(mount, path);
      if (unified) {
        read_v2(group, limits);
        read_v2(under(root / "sys/fs/cgroup/unified", path), limits);  // beside version 1 mounts
      }
      if (cpu) read_v1_cpu(group, limits);
      if (memory) read_v1_memory(group, limits);
      if (path.empty()) break;
    }
  }
  return limits;
}

}  // namespace lamella::cpu
