#define LAMELLA_KERNEL_NAMESPACE avx512_vnni
#include "cpu/kernels/vector/target_avx512.h"

#include "cpu/kernels/vector/dots_vnni.h"

#include "cpu/kernels/vector/vector_kernels.h"
