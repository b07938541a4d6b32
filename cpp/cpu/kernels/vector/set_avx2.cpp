#define LAMELLA_KERNEL_NAMESPACE avx2
#include "cpu/kernels/vector/target_avx2.h"

#include "cpu/kernels/vector/dots_by_pairs.h"

#include "cpu/kernels/vector/vector_kernels.h"
