#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/float_bits.h"
#include "cpu/kernels/reference/reference.h"
#include "memory/rotation.h"

namespace lamella::cpu::reference {
namespace {

/// A token's row as int8 codes and the scale that makes numbers of them (contracts.h).
struct RoundedRow {
  float scale = 0.0F;
  std::vector<std::int64_t> codes;
};

/// x H (memory/rotation.h), stage by stage.
std::vector<float> rotated(const float* x, std::int64_t inputs) {
  std::vector<float> row(x, x + inputs);
  const std::int64_t block = rotation_block(inputs), lines = inputs / block;
  for (std::int64_t h = 1; h < block; h *= 2) {
    const std::vector<float> before = row;
    for (std::int64_t i = 0; i < inputs; ++i) {
      const auto here = static_cast<std::size_t>(i), step = static_cast<std::size_t>(h * lines);
      row[here] = (i / lines & h) == 0 ? before[here] + before[here + step] : before[here - step] - before[here];
    }
  }
  return row;
}

RoundedRow round_to_int8(const float* x, std::int64_t inputs) {
  RoundedRow row{.codes = std::vector<std::int64_t>(static_cast<std::size_t>(inputs))};
  float largest = 0.0F;
  for (std::int64_t i = 0; i < inputs; ++i) {
    if (!std::isfinite(x[i])) {
      row.scale = std::numeric_limits<float>::quiet_NaN();
      return row;
    }
    largest = std::max(largest, std::abs(x[i]));
  }
  if (largest < 0x1p-100F) return row;
  row.scale = largest / 127.0F;
  const float inverse = 127.0F / largest;
  for (std::int64_t i = 0; i < inputs; ++i) {
    const float scaled = x[i] * inverse;  // rounds to fp32 before it is rounded to a whole number
    row.codes[static_cast<std::size_t>(i)] = std::lrint(scaled);  // ties to even
  }
  return row;
}

/// Some of one output's inputs: number = scale * code + minimum, codes already counted from their zero.
struct CodeGroup {
  std::int64_t first = 0;  // input
  std::vector<std::int64_t> codes;
  double scale = 0.0, minimum = 0.0;
};

std::uint32_t bits_at(const PackedMatrix& matrix, std::int64_t offset, std::int64_t bytes) {
  std::uint32_t bits = 0;  // little-endian, as the layout is
  for (std::int64_t i = 0; i < bytes; ++i) bits |= std::to_integer<std::uint32_t>(matrix.data[offset + i]) << 8 * i;
  return bits;
}

std::vector<CodeGroup> groups_of(const PackedMatrix& matrix, std::int64_t output) {
  const WeightFormat& format = matrix.format;
  const PanelLayout layout = matrix.layout();
  const std::uint32_t mask = (1U << bits_of(format.element)) - 1U;
  std::vector<CodeGroup> groups(static_cast<std::size_t>(layout.groups));
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    CodeGroup& group = groups[static_cast<std::size_t>(g)];
    group.first = g * layout.group_inputs;
    const std::uint32_t scale = bits_at(matrix, layout.scale_offset(output, g), layout.scale_bytes);
    const std::uint32_t offset = bits_at(matrix, layout.offset_offset(output, g), layout.offset_bytes);
    group.scale =
        format.scale == Scale::f32 ? std::bit_cast<float>(scale) : f32_from_f16(static_cast<std::uint16_t>(scale));
    if (format.offset == Offset::minimum) group.minimum = f32_from_f16(static_cast<std::uint16_t>(offset));
    const std::int64_t zero = format.offset == Offset::zero ? offset : code_bias(format);
    for (std::int64_t i = 0; i < layout.inputs_of(g); ++i) {
      const std::uint32_t word = bits_at(matrix, layout.word_offset(output, g, i / layout.word_inputs), 4);
      group.codes.push_back(std::int64_t{word >> layout.bit_offset(i % layout.word_inputs) & mask} - zero);
    }
  }
  return groups;
}

/// Inputs in the engine's dtype: y = sum of x[i] * w[i].
double product(const float* x, const std::vector<float>& w) {
  double sum = 0.0;
  for (std::size_t i = 0; i < w.size(); ++i) sum += static_cast<double>(x[i]) * w[i];
  return sum;
}

/// Inputs rounded to int8: whole numbers inside a group, double between groups.
double product(const RoundedRow& x, const std::vector<CodeGroup>& groups) {
  double sum = 0.0;
  for (const CodeGroup& group : groups) {
    const std::int64_t* q = x.codes.data() + group.first;
    std::int64_t products = 0, inputs = 0;
    for (std::size_t i = 0; i < group.codes.size(); ++i) {
      products += q[i] * group.codes[i];
      inputs += q[i];
    }
    sum += group.scale * static_cast<double>(products) + group.minimum * static_cast<double>(inputs);
  }
  return x.scale * sum;
}

void int8_linear(const LinearArgs& a, const Range& mine) {
  const std::int64_t inputs = a.weight.inputs;
  std::vector<RoundedRow> rows;
  rows.reserve(static_cast<std::size_t>(a.tokens));
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    const float* x = row_of(a.x, t, inputs);
    const bool rotate = a.weight.format.input == LinearInput::int8_rotated;
    rows.push_back(round_to_int8(rotate ? rotated(x, inputs).data() : x, inputs));
  }
  for (std::int64_t o = mine.begin; o < mine.end; ++o) {
    const std::vector<CodeGroup> groups = groups_of(a.weight, o);
    for (std::int64_t t = 0; t < a.tokens; ++t)
      row_of(a.y, t, a.weight.outputs)[o] = static_cast<float>(product(rows[static_cast<std::size_t>(t)], groups));
  }
}

}  // namespace

void linear(const LinearArgs& a, const Worker& worker) {
  const Range mine = share(a.weight.outputs, worker);
  if (has_int8_inputs(a.weight.format)) return int8_linear(a, mine);
  std::vector<float> w(static_cast<std::size_t>(a.weight.inputs));
  for (std::int64_t o = mine.begin; o < mine.end; ++o) {
    unpack_row(a.weight, o, w.data());
    for (std::int64_t t = 0; t < a.tokens; ++t)
      row_of(a.y, t, a.weight.outputs)[o] = static_cast<float>(product(row_of(a.x, t, a.weight.inputs), w));
  }
}

void add_bias(const AddBiasArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t)
    for (std::int64_t i = 0; i < a.width; ++i) row_of(a.y, t, a.width)[i] = row_of(a.x, t, a.width)[i] + a.bias[i];
}

}  // namespace lamella::cpu::reference
