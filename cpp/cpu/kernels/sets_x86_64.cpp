// The kernel sets of x86-64 that are built (LAMELLA_KERNEL_SETS) and what they ask of the processor. __builtin_cpu_supports
// asks cpuid and, through xgetbv, whether the operating system saves the wide registers.
#include "cpu/kernels/vector/kernel_sets.h"

namespace lamella::cpu {

const VectorSet* vector_set(KernelSet set) noexcept {
  switch (set) {
    case KernelSet::baseline: return &baseline::vector_set;
#ifdef LAMELLA_BUILDS_avx2
    case KernelSet::avx2: return &avx2::vector_set;
#endif
#ifdef LAMELLA_BUILDS_avx512
    case KernelSet::avx512: return &avx512::vector_set;
#endif
#ifdef LAMELLA_BUILDS_avx512_vnni
    case KernelSet::avx512_vnni: return &avx512_vnni::vector_set;
#endif
    default: return nullptr;
  }
}

bool processor_runs(KernelSet set) noexcept {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (set) {
    case KernelSet::reference:
    case KernelSet::baseline: return true;
    case KernelSet::avx2: return avx2;
    case KernelSet::avx512: return avx512;
    case KernelSet::avx512_vnni:
      return avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

}  // namespace lamella::cpu
