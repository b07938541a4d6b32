// Other processors than x86-64 have the baseline set only, as builds with an empty LAMELLA_KERNEL_SETS do.
#include "cpu/kernels/vector/kernel_sets.h"

namespace lamella::cpu {

const VectorSet* vector_set(KernelSet set) noexcept {
  return set == KernelSet::baseline ? &baseline::vector_set : nullptr;
}

bool processor_runs(KernelSet set) noexcept { return set == KernelSet::reference || set == KernelSet::baseline; }

}  // namespace lamella::cpu
