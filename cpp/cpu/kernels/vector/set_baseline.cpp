#define LAMELLA_KERNEL_NAMESPACE baseline
#include "cpu/kernels/vector/target_baseline.h"

#include "cpu/kernels/vector/dots_by_pairs.h"

#include "cpu/kernels/vector/vector_kernels.h"
