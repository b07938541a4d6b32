#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "base/affinity.h"
#include "cpu/cgroup.h"
#include "cpu/kernels/vector/kernel_sets.h"
#include "cpu/machine.h"
#include "failing_new.h"
#include "lamella/error.h"
#include "seed.h"

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

TEST(Cgroups, D3_MemoryThatRunsOutAnywhereIsNothingButThat) {  // the walk up ends with an empty path below the mount
  const Root root;
  root.write("proc/self/cgroup", "8:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n0::/docker/abc\n");
  root.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
  root.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  bool reached = true;
  for (std::size_t before = 0; reached; ++before) {
    const lamella::testing::FailingNew failing(before);
    try {
      // A stream that gets no memory reads nothing, and a limit that is not read is none.
      EXPECT_EQ(read_cgroup_limits(root.path()).cores.value_or(0.5), 0.5) << "allocation " << before;
    } catch (const std::bad_alloc&) {
      EXPECT_TRUE(failing.failed());
    }
    reached = failing.failed();
  }
  EXPECT_EQ(read_cgroup_limits(root.path()).cores, 0.5);
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
  // One core of any machine of this century, and no machine of this decade.
  const double bandwidth = measure_read_bandwidth(1, std::size_t{64} << 20, 0.02);
  EXPECT_GT(bandwidth, 1e8);
  EXPECT_LT(bandwidth, 1e13);
  for (const KernelSet set : available_kernel_sets()) {
    if (set == KernelSet::reference) continue;
    for (const Arithmetic arithmetic : {Arithmetic::f32, Arithmetic::bf16, Arithmetic::int8}) {
      const double operations = measure_peak(set, arithmetic, 1, 0.02);
      EXPECT_GT(operations, 1e7) << to_string(set) << ", " << to_string(arithmetic);
      EXPECT_LT(operations, 1e14) << to_string(set) << ", " << to_string(arithmetic);
    }
  }
  // A nanosecond is a few cycles; a millisecond is a machine that has other things to do all the time.
  if (const std::optional<double> latency = measure_core_latency()) {
    EXPECT_GT(*latency, 1e-9);
    EXPECT_LT(*latency, 1e-3);
  } else {
    EXPECT_EQ(usable_cores(), 1);
  }
}

TEST(Machine, AffineCoresFollowTheMask) {
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0) << "a kernel for more than 1024 cores";
  EXPECT_EQ(affine_cores(), CPU_COUNT(&all));
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(affine_cores(), 1);
  EXPECT_EQ(usable_cores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
  EXPECT_EQ(affine_cores(), CPU_COUNT(&all));
}

TEST(Machine, ABarrierIsMeasuredWithAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3}) {
    const double seconds = measure_barrier(threads);
    EXPECT_GT(seconds, 0.0) << threads;
    EXPECT_LT(seconds, 1.0) << threads;  // a wait that nobody ends would show
  }
}

TEST(Machine, ABandwidthIsMeasuredWithinWhatIsFreeAndWithinTheBudget) {
  constexpr std::uint64_t mib = 1 << 20;
  EXPECT_EQ(bandwidth_buffer(100'000 * mib, std::nullopt), 1024 * mib);
  EXPECT_EQ(bandwidth_buffer(2000 * mib, std::nullopt), 500 * mib);
  EXPECT_EQ(bandwidth_buffer(100'000 * mib, 300 * mib), 300 * mib);
  EXPECT_EQ(bandwidth_buffer(400 * mib, 300 * mib), 100 * mib);
  EXPECT_EQ(bandwidth_buffer(200 * mib, std::nullopt), 0U);
  EXPECT_EQ(bandwidth_buffer(100'000 * mib, 63 * mib), 0U);
  EXPECT_EQ(bandwidth_buffer(100'000 * mib, 0), 0U);
}

TEST(Machine, ReadingLoopsReadEveryWord) {  // a loop that skips some would be the fastest, and the roof too high
  constexpr std::size_t bytes = 3 * 4096;
  const std::uint64_t seed = lamella::testing::fresh_seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::vector<std::uint32_t> words((bytes + most_read_ahead) / sizeof(std::uint32_t));
  std::generate(words.begin(), words.end(), [&] { return static_cast<std::uint32_t>(random()); });
  const std::uint32_t want = std::accumulate(words.begin(), words.begin() + bytes / sizeof(std::uint32_t), 0U);
  for (const KernelSet set : available_kernel_sets()) {
    if (set == KernelSet::reference) continue;
    for (const ReadLoop loop : vector_set(set)->probes.read_loops)
      EXPECT_EQ(static_cast<std::uint32_t>(loop(reinterpret_cast<const std::byte*>(words.data()), bytes)), want)
          << to_string(set);
  }
}

TEST(Machine, NothingIsMeasuredWithLessThanAThread) {
  const auto code = [](const auto& measure) {
    try {
      static_cast<void>(measure());
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  for (const int threads : {-1, 0, 1025}) {
    EXPECT_EQ(code([&] { return measure_read_bandwidth(threads); }), ErrorCode::invalid_argument);
    EXPECT_EQ(code([&] { return measure_peak(KernelSet::baseline, Arithmetic::f32, threads); }),
              ErrorCode::invalid_argument);
    EXPECT_EQ(code([&] { return measure_barrier(threads); }), ErrorCode::invalid_argument);
  }
}

}  // namespace
}  // namespace lamella::cpu
