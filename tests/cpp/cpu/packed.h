// Weight matrices under test, in every format: as codes, scales and offsets that a test can read one by one, and packed
// in panels. Written from the comment of memory/panels.h and apart from the packer in cpp/store, so that the two check
// each other.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "float64.h"
#include "formats.h"
#include "memory/panels.h"

namespace lamella::cpu::testing {

using lamella::testing::all_formats;
/// `format` with inputs left alone.
[[nodiscard]] WeightFormat weight_only(WeightFormat format);

/// What a format says about a matrix, before any layout.
struct CodedMatrix {
  WeightFormat format;
  std::int64_t outputs = 0, inputs = 0;
  std::vector<std::uint32_t> codes;  // [outputs][inputs]: an element's bits; i8 two's complement where it is signed
  std::vector<std::uint32_t> scales;  // [outputs][groups]: bits of an fp32 or fp16; empty for floats
  std::vector<std::uint32_t> offsets;  // [outputs][groups]: bits of an fp16 minimum, or a zero; else empty

  [[nodiscard]] std::int64_t group_inputs() const { return format.group == 0 ? inputs : format.group; }
  [[nodiscard]] std::int64_t groups() const { return (inputs + group_inputs() - 1) / group_inputs(); }
  [[nodiscard]] float scale(std::int64_t output, std::int64_t group) const;
  [[nodiscard]] float minimum(std::int64_t output, std::int64_t group) const;
  /// A code counted from its zero.
  [[nodiscard]] std::int32_t number(std::int64_t output, std::int64_t input) const;
  /// The fp32 value that the format defines.
  [[nodiscard]] float value(std::int64_t output, std::int64_t input) const;
  [[nodiscard]] Values values() const;
};

/// Values [outputs][inputs] in the nearest codes of a format.
[[nodiscard]] CodedMatrix encode(const WeightFormat& format, std::int64_t inputs, const Values& values);
/// Normally distributed weights.
[[nodiscard]] CodedMatrix random_matrix(std::mt19937_64& random, const WeightFormat& format, std::int64_t outputs,
                                        std::int64_t inputs, double deviation = 1.0);
/// Codes that crowd at the ends of their range, groups and rows of nothing but zeros, zero, negative and subnormal scales,
/// zeros of 0 and 255; floats from subnormal to large.
[[nodiscard]] CodedMatrix extreme_matrix(std::mt19937_64& random, const WeightFormat& format, std::int64_t outputs,
                                         std::int64_t inputs);

/// A matrix in panels, with storage of its own behind a guard of NaN, `misalign_by` bytes off a cache line. Not copied,
/// because a copy would stand elsewhere.
class Packed {
 public:
  explicit Packed(const CodedMatrix& matrix, std::int64_t misalign_by = 0);
  Packed(Packed&&) = default;
  Packed& operator=(Packed&&) = default;
  [[nodiscard]] PackedMatrix matrix() const;
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  WeightFormat format_;
  std::int64_t outputs_, inputs_, bytes_ = 0;
  std::size_t begin_ = 0;
  std::vector<std::byte> storage_;
};

/// A linear in float64, and how large each result is where its terms do not cancel: the root of their squares' sum. The
/// terms are the inputs' products; with int8 inputs and minimums, a group's two: its scaled sum and its minimum's part; where
/// minimums wait for a group's end, the inputs' products with scaled codes and with minimums.
struct Product64 {
  Values y, size;
};
/// x [tokens][inputs], rotated and rounded to int8 first where the format asks for it; the sums of codes are exact then.
[[nodiscard]] Product64 product64(const Values& x, const CodedMatrix& weight, bool minimums_wait = false);
/// The same with a bias where there is one.
[[nodiscard]] Values linear64(const Values& x, const CodedMatrix& weight, const Values& bias);

}  // namespace lamella::cpu::testing
