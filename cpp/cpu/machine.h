// What this machine has and how fast it really is: the figures that choices, budgets and benches are measured against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/arithmetic.h"
#include "cpu/kernels/contracts.h"

namespace lamella::cpu {

/// Threads that anybody may ask for.
inline constexpr int most_threads = 1024;

/// Cores that this process may use: its affinity mask, limited by cgroup quotas (rounded up); at least 1.
[[nodiscard]] int usable_cores();

/// The processor's name as the kernel tells it, or the architecture.
[[nodiscard]] std::string processor_name();

/// Bytes of memory free for this process: the kernel's MemAvailable, limited by cgroups.
[[nodiscard]] std::uint64_t available_memory();

/// Bytes that a measurement of the read bandwidth may take: what keeps caches out of it (1 GiB), but at most a quarter
/// of the memory available and all that a memory budget leaves. 0, for no measurement, where that is below 64 MiB, which
/// would measure a cache.
[[nodiscard]] std::size_t bandwidth_buffer(std::uint64_t available, std::optional<std::uint64_t> left_of_budget);

/// Bytes per second that `threads` threads read from memory together with the widest vectors here: each reads its own
/// part of `bytes`, touched before, again and again for about `seconds`, in turns with loops of which one or another is
/// the fastest on a machine; the best pass counts. At least 1 GiB keeps caches out of it. Errors: invalid_argument for
/// less than a thread, out_of_memory.
[[nodiscard]] double measure_read_bandwidth(int threads, std::size_t bytes = std::size_t{1} << 30,
                                            double seconds = 0.4);

/// Operations a second (a multiplication and an addition are two) of `threads` threads that do nothing but multiply-adds
/// in registers with the vectors of `set` (not reference); fp32 ones in place of bf16 on sets without an instruction for
/// those. Errors: invalid_argument for less than a thread,
/// out_of_memory.
[[nodiscard]] double measure_peak(KernelSet set, Arithmetic arithmetic, int threads, double seconds = 0.2);

/// Seconds from a store on one thread until another thread sees it: half of a round trip, the median of many. It tells
/// whether two cores share a cache. Empty where this process may use one core only. Errors: out_of_memory.
[[nodiscard]] std::optional<double> measure_core_latency();

/// Seconds that a team of so many threads takes to meet at its barrier, all of them with nothing to do between two: the
/// median of many batches. Errors: invalid_argument for less than a thread, out_of_memory.
[[nodiscard]] double measure_barrier(int threads);

}  // namespace lamella::cpu
