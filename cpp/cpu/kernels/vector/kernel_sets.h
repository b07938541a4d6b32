// What each instruction set's translation unit exports: constants only, so that choosing a set runs none of its code.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cpu/kernels/contracts.h"
#include "runtime/logit_kernels.h"

namespace lamella::cpu {

/// A loop of multiply-adds from register to register; a multiplication and an addition are two operations.
struct PeakProbe {
  float (*run)(std::int64_t rounds, float factor, float addend);
  std::int64_t operations_a_round;
};

/// Reads `bytes`, a multiple of 4096, and may ask for most_read_ahead more.
using ReadLoop = std::uint64_t (*)(const std::byte* from, std::size_t bytes);
constexpr std::size_t most_read_ahead = 8192;

/// Loops that measure the machine with a set's vectors (cpu/machine.h).
struct Probes {
  std::array<ReadLoop, 3> read_loops;
  PeakProbe f32, bf16, int8;
};

struct VectorSet {
  KernelTable f32, f16, bf16;
  LogitKernels logits;
  Probes probes;
};

namespace baseline {
extern const VectorSet vector_set;
}
namespace avx2 {
extern const VectorSet vector_set;
}
namespace avx512 {
extern const VectorSet vector_set;
}
namespace avx512_vnni {
extern const VectorSet vector_set;
}

/// The vector kernels of a set; nullptr for the reference set and for sets that are not compiled in (sets_*.cpp, chosen
/// by CMake).
[[nodiscard]] const VectorSet* vector_set(KernelSet set) noexcept;
/// Whether the processor has the instructions of a set and the operating system saves its registers.
[[nodiscard]] bool processor_runs(KernelSet set) noexcept;

}  // namespace lamella::cpu
