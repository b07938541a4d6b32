// What the kernel tests share: targets, a printed seed, guarded buffers, the error metric, and running a kernel on some
// workers.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "cpu/kernels/contracts.h"

namespace lamella::cpu::testing {

/// One kernel table under test. Every test runs on every set that this machine has, with every dtype of the set.
struct Target {
  KernelSet set;
  DataType dtype;
  [[nodiscard]] const KernelTable& kernels() const { return kernel_table(set, dtype); }
};
[[nodiscard]] std::vector<Target> all_targets();
[[nodiscard]] std::vector<Target> vector_targets();  // without the reference set, which has no fused kernels
[[nodiscard]] std::string target_name(const ::testing::TestParamInfo<Target>& info);

/// A test on one target, with random numbers drawn freshly unless LAMELLA_SEED is set; a failure prints the seed.
class KernelTest : public ::testing::TestWithParam<Target> {
 protected:
  KernelTest();
  [[nodiscard]] const KernelTable& kernels() const { return GetParam().kernels(); }
  [[nodiscard]] DataType dtype() const { return GetParam().dtype; }
  /// Uniform in [low, high].
  [[nodiscard]] std::int64_t draw(std::int64_t low, std::int64_t high);
  /// One of the widths that lie on, beside and far from every vector and tile boundary.
  [[nodiscard]] std::int64_t draw_width();
  /// A number of rows of `width`: few, but enough that a single result which cancels to almost nothing does not decide
  /// the error.
  [[nodiscard]] std::int64_t draw_rows(std::int64_t width);
  /// For a weight matrix: on, beside and across tiles of 16 and panels of 64 outputs.
  [[nodiscard]] std::int64_t draw_outputs();
  /// On and off words, vectors and groups of 32 to 128 inputs, with short last groups of every kind.
  [[nodiscard]] std::int64_t draw_inputs();
  /// 1 to 40, now and then 64 to 97.
  [[nodiscard]] std::int64_t draw_tokens();
  [[nodiscard]] std::vector<double> normal(std::int64_t count, double scale = 1.0, double mean = 0.0);
  /// Whether inputs and weights meet as pairs of bf16 (vdpbf16ps), which sums by pairs and takes codes before their scale.
  [[nodiscard]] bool multiplies_pairs(const WeightFormat& format) const;

  std::mt19937_64 random_;

 private:
  std::uint64_t seed_;
  ::testing::ScopedTrace trace_;
};

/// `count` elements of f32, f16, bf16 or i8 (bytes of number + 128) at an address off every alignment but the element's, between guards of NaN that
/// expect_intact() looks at. Outputs start as NaN too, so an element that nobody wrote spoils the comparison.
class Cells {
 public:
  Cells(DataType dtype, std::int64_t count, std::int64_t misalign_by = 1);
  Cells(DataType dtype, const std::vector<double>& values);  // rounded to dtype
  [[nodiscard]] void* data() { return bytes_.data() + offset_; }
  [[nodiscard]] const void* data() const { return bytes_.data() + offset_; }
  [[nodiscard]] float* floats() { return static_cast<float*>(data()); }
  [[nodiscard]] std::int64_t size() const { return count_; }
  [[nodiscard]] DataType dtype() const { return dtype_; }
  [[nodiscard]] double at(std::int64_t i) const;
  void set(std::int64_t i, double value);
  [[nodiscard]] std::vector<double> values() const;
  [[nodiscard]] std::vector<std::byte> bits() const;
  void expect_intact() const;

 private:
  DataType dtype_;
  std::int64_t count_;
  std::size_t offset_;
  std::vector<std::byte> bytes_;
};

/// ||got - want|| / ||want||, infinity where `got` holds a NaN.
[[nodiscard]] double relative_error(const std::vector<double>& got, const std::vector<double>& want);
/// What one kernel may differ from float64: fp32 5e-6; bf16 4.2e-3 and fp16 5.3e-4: rounding the result is at most 2^-8
/// and 2^-11.
[[nodiscard]] double bound_of(DataType dtype);
void expect_close(const Cells& got, const std::vector<double>& want, double bound);
/// The nearest number of `dtype`.
[[nodiscard]] double rounded(DataType dtype, double value);
/// Every element on its own: what some number within `slack` of `want` rounds to. Overflow to infinity included.
void expect_within(const Cells& got, const std::vector<double>& want, const std::vector<double>& slack);

/// Scratch of exactly so many bytes, aligned as promised, full of NaN, with a guard behind it.
class GuardedScratch {
 public:
  explicit GuardedScratch(std::size_t bytes) : bytes_(bytes), memory_(bytes + 128, std::byte{0xff}) {}
  [[nodiscard]] Scratch scratch() {
    const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(memory_.data()) % 64;
    return {.data = memory_.data() + (64 - misaligned) % 64, .size = bytes_};
  }
  void expect_intact() {
    const std::byte* end = scratch().data + bytes_;
    for (int i = 0; i < 64; ++i)
      EXPECT_EQ(end[i], std::byte{0xff}) << "scratch of " << bytes_ << " bytes overrun by " << i + 1;
  }

 private:
  std::size_t bytes_;
  std::vector<std::byte> memory_;
};

/// Calls a kernel as every one of `workers`, phase by phase, one after the other, each with scratch of exactly the promised
/// size full of NaN. Of an odd number they may take from each other's shares, and one in their middle has all to itself.
template <typename Arguments>
void run(void (*kernel)(const Arguments&, const Worker&), Arguments arguments, int workers = 1,
         ScratchBounds bounds = {}) {
  if constexpr (requires { arguments.shared_inputs; }) {
    arguments.shared_inputs = share_inputs(arguments);  // as an executor does
    bounds.max_tokens = arguments.tokens;
  }
  GuardedScratch shared(shared_bytes(bounds));
  std::vector<WorkShare> shares(static_cast<std::size_t>(workers));
  for (int phase = 0; phase < phases(arguments); ++phase)
    for (int turn = 0; turn < workers; ++turn) {
      GuardedScratch scratch(scratch_bytes(bounds));
      kernel(arguments, Worker{.index = (workers / 2 + turn) % workers,
                               .count = workers,
                               .scratch = scratch.scratch(),
                               .shared = shared.scratch(),
                               .phase = phase,
                               .shares = workers % 2 == 1 ? shares.data() : nullptr,
                               .round = static_cast<std::uint32_t>(phase + 1)});
      scratch.expect_intact();
    }
  shared.expect_intact();
}

}  // namespace lamella::cpu::testing
