// What this machine has and how fast it really is: the figures that choices, budgets and benches are measured against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cpu/kernels/contracts.h"

namespace lamella::cpu {

/// Cores that this process may use: its affinity mask, limited by cgroup quotas (rounded up); at least 1.
[[nodiscard]] int usable_cores();

/// The processor's name as the kernel tells it, or the architecture.
[[nodiscard]] std::string processor_name();

/// Bytes of memory free for this process: the kernel's MemAvailable, limited by cgroups.
[[nodiscard]] std::uint64_t available_memory();

/// Sizes in bytes of the caches that core 0 sees; 0 where the system does not tell.
struct CacheSizes {
  std::uint64_t level1_data = 0, level2 = 0, level3 = 0;
};
[[nodiscard]] CacheSizes cache_sizes();

/// Bytes per second that `threads` threads read from memory together with the widest vectors here: each reads its own
/// part of `bytes`, touched before, again and again for about `seconds`; the best pass counts. At least 1 GiB keeps
/// caches out of it. Errors: out_of_memory.
[[nodiscard]] double measure_read_bandwidth(int threads, std::size_t bytes = std::size_t{1} << 30,
                                            double seconds = 0.4);

/// fp32 FLOP/s of `threads` threads that do nothing but multiply-adds in registers with the vectors of `set` (not
/// reference).
[[nodiscard]] double measure_peak_flops(KernelSet set, int threads, double seconds = 0.2);

}  // namespace lamella::cpu
