// The loops that choose tokens, by instruction set.
#pragma once

#include "cpu/kernels/contracts.h"
#include "runtime/logit_kernels.h"

namespace lamella::cpu {

/// The loops of a set that this machine runs; of the reference set the plain ones.
[[nodiscard]] const LogitKernels& logit_kernels(KernelSet set) noexcept;

}  // namespace lamella::cpu
