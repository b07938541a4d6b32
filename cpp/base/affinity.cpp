#include "base/affinity.h"

#include <sched.h>

#include <algorithm>
#include <new>
#include <thread>
#include <vector>

namespace lamella {

int affine_cores() noexcept {
  const auto all_cores = [] { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); };
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  // The mask's size is the kernel's, which may exceed cpu_set_t's 1024.
  try {
    for (std::size_t cores = 2048; cores <= std::size_t{1} << 20; cores *= 2) {
      std::vector<unsigned long> mask(cores / (8 * sizeof(unsigned long)));
      auto* large = reinterpret_cast<cpu_set_t*>(mask.data());
      const std::size_t bytes = mask.size() * sizeof(unsigned long);
      if (sched_getaffinity(0, bytes, large) == 0) return std::max(1, CPU_COUNT_S(bytes, large));
    }
  } catch (const std::bad_alloc&) {
    return all_cores();
  }
  return all_cores();
}

}  // namespace lamella
