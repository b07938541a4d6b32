#define LAMELLA_KERNEL_NAMESPACE avx512
#include "cpu/kernels/vector/target_avx512.h"

#include "cpu/kernels/vector/dots_by_pairs.h"

#include "cpu/kernels/vector/vector_kernels.h"
