#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "cpu/cgroup.h"
#include "cpu/machine.h"

namespace lamella::cpu {
namespace {

namespace fs = std::filesystem;

/// A folder that stands in for "/".
class Root {
 public:
  Root()
      : path_(fs::temp_directory_path() / ("lamella-root-" + std::to_string(::getpid()) +
                                           ::testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~Root() { fs::remove_all(path_); }
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;
  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((path_ / file).parent_path());
    std::ofstream(path_ / file) << text;
  }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

TEST(Cgroups, Version2TakesTheTightestLimitOnTheWayUp) {
  const Root root;
  root.write("proc/self/cgroup", "0::/user/app\n");
  root.write("sys/fs/cgroup/user/app/cpu.max", "max 100000\n");
  root.write("sys/fs/cgroup/user/cpu.max", "150000 100000\n");
  root.write("sys/fs/cgroup/user/app/memory.max", "1000\n");
  root.write("sys/fs/cgroup/user/app/memory.current", "700\n");
  root.write("sys/fs/cgroup/user/app/memory.stat", "anon 500\ninactive_file 150\n");
  root.write("sys/fs/cgroup/user/memory.max", "max\n");
  const CgroupLimits limits = read_cgroup_limits(root.path());
  EXPECT_EQ(limits.cores, 1.5);
  EXPECT_EQ(limits.memory_left, 1000U - (700U - 150U));
}

TEST(Cgroups, Version1ReadsBothControllers) {
  const Root root;
  root.write("proc/self/cgroup", "8:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n2:pids:/docker/abc\n0::/\n");
  root.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");  // the container's own group is the mount's root
  root.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n");
  root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n");
  const CgroupLimits limits = read_cgroup_limits(root.path());
  EXPECT_EQ(limits.cores, 0.5);
  EXPECT_EQ(limits.memory_left, 0U);
}

TEST(Cgroups, NothingThereLimitsNothing) {
  const Root root;
  EXPECT_FALSE(read_cgroup_limits(root.path()).cores.has_value());
  root.write("proc/self/cgroup", "nonsense\n0::/\n");
  root.write("sys/fs/cgroup/cpu.max", "lots\n");
  root.write("sys/fs/cgroup/memory.max", "");
  EXPECT_FALSE(read_cgroup_limits(root.path()).cores.has_value());
  EXPECT_FALSE(read_cgroup_limits(root.path()).memory_left.has_value());
}

TEST(Machine, FiguresAreSane) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_FALSE(processor_name().empty());
  EXPECT_GT(available_memory(), std::uint64_t{1} << 20);
  const CacheSizes caches = cache_sizes();
  EXPECT_LE(caches.level1_data, caches.level2);
  // One core of any machine of this century, and no machine of this decade.
  const double bandwidth = measure_read_bandwidth(1, std::size_t{64} << 20, 0.02);
  EXPECT_GT(bandwidth, 1e8);
  EXPECT_LT(bandwidth, 1e13);
  for (const KernelSet set : available_kernel_sets()) {
    if (set == KernelSet::reference) continue;
    const double flops = measure_peak_flops(set, 1, 0.02);
    EXPECT_GT(flops, 1e7) << to_string(set);
    EXPECT_LT(flops, 1e13) << to_string(set);
  }
}

}  // namespace
}  // namespace lamella::cpu
