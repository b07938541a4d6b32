#include "kernel_testing.h"

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "seed.h"

namespace lamella::cpu::testing {
namespace {

constexpr std::size_t guard_bytes = 128;

std::uint16_t to_bf16(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The compiler's own fp16, not the engine's conversions.
std::uint16_t to_f16(double value) { return std::bit_cast<std::uint16_t>(static_cast<_Float16>(value)); }

double widened(DataType dtype, std::uint16_t bits) {
  if (dtype == DataType::f16) return static_cast<double>(std::bit_cast<_Float16>(bits));
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::uint16_t narrowed(DataType dtype, double value) { return dtype == DataType::f16 ? to_f16(value) : to_bf16(value); }

}  // namespace

std::vector<Target> vector_targets() {
  std::vector<Target> targets;
  for (const KernelSet set : available_kernel_sets())
    if (set != KernelSet::reference)
      for (const DataType dtype : {DataType::f32, DataType::f16, DataType::bf16}) targets.push_back({set, dtype});
  return targets;
}

std::vector<Target> all_targets() {
  std::vector<Target> targets = vector_targets();
  targets.push_back({KernelSet::reference, DataType::f32});
  return targets;
}

std::string target_name(const ::testing::TestParamInfo<Target>& info) {
  return std::string(to_string(info.param.set)) + "_" + std::string(to_string(info.param.dtype));
}

KernelTest::KernelTest()
    : seed_(lamella::testing::fresh_seed()), trace_(__FILE__, __LINE__, "LAMELLA_SEED=" + std::to_string(seed_)) {
  random_.seed(seed_);
}

std::int64_t KernelTest::draw(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
}

std::int64_t KernelTest::draw_width() {
  constexpr std::array<std::int64_t, 16> widths = {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 63, 64, 96, 127, 257, 520};
  return widths[static_cast<std::size_t>(draw(0, widths.size() - 1))];
}

std::int64_t KernelTest::draw_rows(std::int64_t width) { return width < 64 ? draw(64, 70) : draw(1, 9); }

std::int64_t KernelTest::draw_outputs() {
  constexpr std::array<std::int64_t, 24> outputs = {1,  2,  3,  8,  15, 16,  17,  31,  32,  33,  47,  48,
                                                    49, 63, 64, 65, 81, 112, 127, 128, 129, 130, 193, 260};
  return outputs[static_cast<std::size_t>(draw(0, outputs.size() - 1))];
}

std::int64_t KernelTest::draw_inputs() {
  constexpr std::array<std::int64_t, 34> inputs = {1,   2,   3,   4,   5,   7,   8,   9,   12,  15,  16,  17,
                                                   31,  32,  33,  36,  40,  63,  64,  65,  96,  100, 127, 128,
                                                   129, 130, 160, 200, 255, 257, 384, 520, 640, 1160};
  return inputs[static_cast<std::size_t>(draw(0, inputs.size() - 1))];
}

std::int64_t KernelTest::draw_tokens() {
  constexpr std::array<std::int64_t, 4> many = {63, 64, 65, 97};
  return draw(0, 7) == 0 ? many[static_cast<std::size_t>(draw(0, 3))] : draw(1, 40);
}

bool KernelTest::multiplies_pairs(const WeightFormat& format) const {
  return GetParam().set == KernelSet::avx512_vnni && dtype() == DataType::bf16 && !has_int8_inputs(format) &&
         format.offset != Offset::zero && format.element != Element::f32 && format.element != Element::f16;
}

std::vector<double> KernelTest::normal(std::int64_t count, double scale, double mean) {
  std::normal_distribution<double> distribution(mean, scale);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& value : values) value = distribution(random_);
  return values;
}

Cells::Cells(DataType dtype, std::int64_t count, std::int64_t misalign_by)
    : dtype_(dtype),
      count_(count),
      offset_(guard_bytes + static_cast<std::size_t>(misalign_by) * size_of(dtype)),
      bytes_(offset_ + static_cast<std::size_t>(count) * size_of(dtype) + guard_bytes, std::byte{0xff}) {}

Cells::Cells(DataType dtype, const std::vector<double>& values)
    : Cells(dtype, static_cast<std::int64_t>(values.size())) {
  for (std::int64_t i = 0; i < count_; ++i) set(i, values[static_cast<std::size_t>(i)]);
}

double Cells::at(std::int64_t i) const {
  const std::byte* from = bytes_.data() + offset_ + static_cast<std::size_t>(i) * size_of(dtype_);
  if (dtype_ == DataType::i8) return std::to_integer<int>(*from) - 128;
  if (size_of(dtype_) == 2) {
    std::uint16_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return widened(dtype_, bits);
  }
  float value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

void Cells::set(std::int64_t i, double value) {
  std::byte* to = bytes_.data() + offset_ + static_cast<std::size_t>(i) * size_of(dtype_);
  if (dtype_ == DataType::i8) {
    *to = static_cast<std::byte>(static_cast<int>(value) + 128);
    return;
  }
  const std::uint16_t narrow = narrowed(dtype_, value);
  const float wide = static_cast<float>(value);
  if (size_of(dtype_) == 2) std::memcpy(to, &narrow, sizeof narrow);
  else std::memcpy(to, &wide, sizeof wide);
}

std::vector<double> Cells::values() const {
  std::vector<double> values(static_cast<std::size_t>(count_));
  for (std::int64_t i = 0; i < count_; ++i) values[static_cast<std::size_t>(i)] = at(i);
  return values;
}

std::vector<std::byte> Cells::bits() const {
  const std::byte* from = bytes_.data() + offset_;
  return {from, from + static_cast<std::size_t>(count_) * size_of(dtype_)};
}

void Cells::expect_intact() const {
  const std::size_t end = offset_ + static_cast<std::size_t>(count_) * size_of(dtype_);
  for (std::size_t i = 0; i < bytes_.size(); ++i)
    if ((i < offset_ || i >= end) && bytes_[i] != std::byte{0xff}) {
      ADD_FAILURE() << "byte " << static_cast<std::int64_t>(i) - static_cast<std::int64_t>(offset_)
                    << " written, outside of " << end - offset_ << " bytes";
      return;
    }
}

double relative_error(const std::vector<double>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(got[i])) return std::numeric_limits<double>::infinity();
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return difference == 0.0 ? 0.0 : std::sqrt(difference / size);
}

double bound_of(DataType dtype) {
  if (dtype == DataType::f16) return 5.3e-4;
  return dtype == DataType::bf16 ? 4.2e-3 : 5e-6;
}

double rounded(DataType dtype, double value) {
  return size_of(dtype) == 2 ? widened(dtype, narrowed(dtype, value)) : static_cast<float>(value);
}

void expect_close(const Cells& got, const std::vector<double>& want, double bound) {
  EXPECT_LE(relative_error(got.values(), want), bound);
  got.expect_intact();
}

void expect_within(const Cells& got, const std::vector<double>& want, const std::vector<double>& slack) {
  ASSERT_EQ(got.size(), static_cast<std::int64_t>(want.size()));
  std::int64_t wrong = 0, first = -1;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    const double low = rounded(got.dtype(), want[at] - slack[at]), high = rounded(got.dtype(), want[at] + slack[at]);
    if (got.at(i) >= low && got.at(i) <= high) continue;
    ++wrong;
    if (first < 0) first = i;
  }
  if (wrong > 0) {
    const auto at = static_cast<std::size_t>(first);
    ADD_FAILURE() << wrong << " of " << got.size() << " wrong, first element " << first << ": " << got.at(first)
                  << " where " << want[at] << " +- " << slack[at] << " was expected";
  }
  got.expect_intact();
}

}  // namespace lamella::cpu::testing
