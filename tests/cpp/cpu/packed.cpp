#include "packed.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace lamella::cpu::testing {
namespace {

constexpr std::size_t guard_bytes = 128;

// The compiler's own fp16, not the engine's conversions.
std::uint32_t f16_bits(double value) { return std::bit_cast<std::uint16_t>(static_cast<_Float16>(value)); }
float from_f16(std::uint32_t bits) {
  return static_cast<float>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(bits)));
}
std::uint32_t bf16_bits(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  return (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
}

std::uint32_t float_bits(Element element, double value) {
  if (element == Element::f16) return f16_bits(value);
  return element == Element::bf16 ? bf16_bits(value) : std::bit_cast<std::uint32_t>(static_cast<float>(value));
}

bool is_unsigned(const WeightFormat& format) { return format.offset != Offset::none; }
std::int64_t code_count(const WeightFormat& format) { return format.element == Element::i8 ? 256 : 16; }

/// The bits that stand for number `code` of an integer format: unsigned, two's complement or, for i4, code + 8.
std::uint32_t code_bits(const WeightFormat& format, std::int64_t code) {
  if (format.element == Element::i4 && !is_unsigned(format)) code += 8;
  return static_cast<std::uint32_t>(code & (code_count(format) - 1));
}

CodedMatrix empty_matrix(const WeightFormat& format, std::int64_t outputs, std::int64_t inputs) {
  validate(format);
  CodedMatrix matrix{.format = format, .outputs = outputs, .inputs = inputs};
  matrix.codes.resize(static_cast<std::size_t>(outputs * inputs));
  const auto groups = static_cast<std::size_t>(outputs * matrix.groups());
  if (format.scale != Scale::none) matrix.scales.resize(groups);
  if (format.offset != Offset::none) matrix.offsets.resize(groups);
  return matrix;
}

/// A token's row as contracts.h rounds it to int8.
struct RoundedRow {
  double scale = 0.0;
  std::vector<std::int32_t> codes;
};

/// A row as memory/rotation.h rotates it: one bit of the line's number after the other, in fp32.
Values rotated_row(const double* x, std::int64_t inputs) {
  std::int64_t lines = 1;
  while (lines < 64 && inputs % (2 * lines) == 0) lines *= 2;
  Values row(x, x + inputs);
  for (std::int64_t bit = 1; bit < lines; bit *= 2) {
    const Values before = row;
    for (std::int64_t i = 0; i < inputs; ++i) {
      const std::int64_t line = i / (inputs / lines), column = i % (inputs / lines);
      const auto of = [&](std::int64_t number) {
        return static_cast<float>(before[static_cast<std::size_t>(number * (inputs / lines) + column)]);
      };
      row[static_cast<std::size_t>(i)] = line & bit ? of(line - bit) - of(line) : of(line) + of(line + bit);
    }
  }
  return row;
}

RoundedRow rounded_row(const double* x, std::int64_t inputs) {
  RoundedRow row{.codes = std::vector<std::int32_t>(static_cast<std::size_t>(inputs))};
  double largest = 0.0;
  for (std::int64_t i = 0; i < inputs; ++i) largest = std::max(largest, std::abs(x[i]));
  if (largest < std::pow(2.0, -100)) return row;
  const float absmax = static_cast<float>(largest), inverse = 127.0F / absmax;
  row.scale = absmax / 127.0F;
  for (std::int64_t i = 0; i < inputs; ++i)
    row.codes[static_cast<std::size_t>(i)] =
        static_cast<std::int32_t>(std::nearbyint(static_cast<float>(x[i]) * inverse));
  return row;
}

void put(std::vector<std::byte>& to, std::uint32_t bits, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; ++i) to.push_back(static_cast<std::byte>(bits >> 8 * i));
}

}  // namespace

WeightFormat weight_only(WeightFormat format) {
  format.input = LinearInput::dtype;
  return format;
}

float CodedMatrix::scale(std::int64_t output, std::int64_t group) const {
  if (scales.empty()) return 1.0F;
  const std::uint32_t bits = scales[static_cast<std::size_t>(output * groups() + group)];
  return format.scale == Scale::f32 ? std::bit_cast<float>(bits) : from_f16(bits);
}

float CodedMatrix::minimum(std::int64_t output, std::int64_t group) const {
  return format.offset != Offset::minimum ? 0.0F
                                          : from_f16(offsets[static_cast<std::size_t>(output * groups() + group)]);
}

std::int32_t CodedMatrix::number(std::int64_t output, std::int64_t input) const {
  const auto code = static_cast<std::int32_t>(codes[static_cast<std::size_t>(output * inputs + input)]);
  if (format.offset == Offset::minimum) return code;
  if (format.offset == Offset::zero)
    return code -
           static_cast<std::int32_t>(offsets[static_cast<std::size_t>(output * groups() + input / group_inputs())]);
  return format.element == Element::i8 ? static_cast<std::int8_t>(code) : code - 8;
}

float CodedMatrix::value(std::int64_t output, std::int64_t input) const {
  const std::uint32_t bits = codes[static_cast<std::size_t>(output * inputs + input)];
  switch (format.element) {
    case Element::f32: return std::bit_cast<float>(bits);
    case Element::bf16: return std::bit_cast<float>(bits << 16);
    case Element::f16: return from_f16(bits);
    case Element::i8:
    case Element::i4: break;
  }
  const std::int64_t group = input / group_inputs();
  const float scaled = scale(output, group) * static_cast<float>(number(output, input));
  return format.offset == Offset::minimum ? scaled + minimum(output, group) : scaled;  // -0 stays -0
}

Values CodedMatrix::values() const {
  Values all;
  all.reserve(codes.size());
  for (std::int64_t o = 0; o < outputs; ++o)
    for (std::int64_t i = 0; i < inputs; ++i) all.push_back(value(o, i));
  return all;
}

CodedMatrix encode(const WeightFormat& format, std::int64_t inputs, const Values& values) {
  CodedMatrix matrix = empty_matrix(format, static_cast<std::int64_t>(values.size()) / inputs, inputs);
  if (!is_quantised(format)) {
    for (std::size_t i = 0; i < values.size(); ++i) matrix.codes[i] = float_bits(format.element, values[i]);
    return matrix;
  }
  const std::int64_t count = code_count(format), lowest = is_unsigned(format) ? 0 : -count / 2;
  for (std::int64_t o = 0; o < matrix.outputs; ++o)
    for (std::int64_t g = 0; g < matrix.groups(); ++g) {
      const std::int64_t begin = o * inputs + g * matrix.group_inputs(),
                         end = o * inputs + std::min((g + 1) * matrix.group_inputs(), inputs);
      const auto [low, high] = std::minmax_element(values.begin() + begin, values.begin() + end);
      const auto at = static_cast<std::size_t>(o * matrix.groups() + g);
      const double range = is_unsigned(format) ? std::max(*high, 0.0) - std::min(*low, 0.0)
                                               : 2.0 * std::max(std::abs(*low), std::abs(*high));
      const double step = range / static_cast<double>(is_unsigned(format) ? count - 1 : count - 2);
      matrix.scales[at] =
          format.scale == Scale::f32 ? std::bit_cast<std::uint32_t>(static_cast<float>(step)) : f16_bits(step);
      const double scale = matrix.scale(o, g);
      if (format.offset == Offset::minimum) matrix.offsets[at] = f16_bits(std::min(*low, 0.0));
      if (format.offset == Offset::zero && scale > 0.0)
        matrix.offsets[at] = static_cast<std::uint32_t>(std::clamp(-*low / scale, 0.0, 255.0));
      const double zero = format.offset == Offset::zero ? matrix.offsets[at] : 0.0;
      for (std::int64_t i = begin; i < end; ++i) {
        const auto from = static_cast<std::size_t>(i);
        const double code = scale > 0.0 ? std::nearbyint((values[from] - matrix.minimum(o, g)) / scale + zero) : zero;
        matrix.codes[from] = code_bits(format, std::clamp(static_cast<std::int64_t>(code), lowest, lowest + count - 1));
      }
    }
  return matrix;
}

CodedMatrix random_matrix(std::mt19937_64& random, const WeightFormat& format, std::int64_t outputs,
                          std::int64_t inputs, double deviation) {
  std::normal_distribution<double> normal(0.0, deviation);
  Values values(static_cast<std::size_t>(outputs * inputs));
  for (double& value : values) value = normal(random);
  return encode(format, inputs, values);
}

CodedMatrix extreme_matrix(std::mt19937_64& random, const WeightFormat& format, std::int64_t outputs,
                           std::int64_t inputs) {
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const auto sign = [&] { return draw(0, 1) == 0 ? -1.0 : 1.0; };
  CodedMatrix matrix = empty_matrix(format, outputs, inputs);
  if (!is_quantised(format)) {
    // Subnormals of bf16 and fp32 lie below 2^-126, those of fp16 below 2^-14.
    const std::int64_t lowest = format.element == Element::f16 ? -24 : -140;
    bool zero_row = false;
    for (std::size_t i = 0; i < matrix.codes.size(); ++i) {
      if (i % static_cast<std::size_t>(inputs) == 0) zero_row = draw(0, 9) == 0;
      std::uint32_t& code = matrix.codes[i];
      const std::int64_t kind = zero_row ? 0 : draw(0, 9);
      const double size = kind == 0 ? 0.0 : std::ldexp(1.0, static_cast<int>(kind < 3 ? draw(lowest, 9) : draw(-2, 2)));
      code = float_bits(format.element, sign() * size * (1.0 + static_cast<double>(draw(0, 255)) / 256.0));
    }
    return matrix;
  }
  const std::int64_t count = code_count(format), lowest = is_unsigned(format) ? 0 : -count / 2;
  for (std::int64_t o = 0; o < outputs; ++o) {
    const bool zero_row = draw(0, 9) == 0;
    for (std::int64_t g = 0; g < matrix.groups(); ++g) {
      const auto at = static_cast<std::size_t>(o * matrix.groups() + g);
      const std::int64_t kind = draw(0, 5);
      double scale =
          sign() * std::ldexp(1.0 + static_cast<double>(draw(0, 1023)) / 1024.0, static_cast<int>(draw(-8, 2)));
      if (kind == 0) scale = 0.0;
      if (kind == 1) scale = format.scale == Scale::f32 ? scale * 1e-30 : sign() * std::ldexp(draw(1, 1023), -24);
      matrix.scales[at] =
          format.scale == Scale::f32 ? std::bit_cast<std::uint32_t>(static_cast<float>(scale)) : f16_bits(scale);
      if (format.offset == Offset::minimum)
        matrix.offsets[at] = f16_bits(zero_row ? 0.0 : -scale * static_cast<double>(draw(0, 3) == 0 ? 0 : draw(0, 15)));
      if (format.offset == Offset::zero)
        matrix.offsets[at] = static_cast<std::uint32_t>(kind == 2 ? 0 : kind == 3 ? 255 : draw(0, 255));
      const bool constant = draw(0, 3) == 0;  // all inputs of a group at one end: the largest sums there are
      const std::int64_t end = lowest + draw(0, 1) * (count - 1);
      const bool zeros = zero_row || draw(0, 7) == 0;  // as near to zero as codes come, whatever the scale
      const std::int64_t zero =
          format.offset != Offset::zero ? 0 : std::min<std::int64_t>(matrix.offsets[at], lowest + count - 1);
      for (std::int64_t i = g * matrix.group_inputs(); i < std::min((g + 1) * matrix.group_inputs(), inputs); ++i) {
        const std::int64_t code = zeros             ? zero
                                  : constant        ? end
                                  : draw(0, 1) == 0 ? lowest + draw(0, 1) * (count - 1)
                                                    : lowest + draw(0, count - 1);
        matrix.codes[static_cast<std::size_t>(o * inputs + i)] = code_bits(format, code);
      }
    }
  }
  return matrix;
}

Packed::Packed(const CodedMatrix& matrix, std::int64_t misalign_by)
    : format_(matrix.format), outputs_(matrix.outputs), inputs_(matrix.inputs) {
  const WeightFormat& format = matrix.format;
  std::int64_t bits = 32;
  if (format.element == Element::f16 || format.element == Element::bf16) bits = 16;
  if (format.element == Element::i8) bits = 8;
  if (format.element == Element::i4) bits = 4;
  const std::int64_t word_inputs = 32 / bits;  // M of the layout
  const bool flipped = format.element == Element::i8 && format.offset == Offset::none;

  std::vector<std::byte> bytes;
  // Nothing here computes an offset: what comes next is appended.
  for (std::int64_t first = 0; first < outputs_; first += 64) {
    const std::int64_t lanes = (std::min<std::int64_t>(64, outputs_ - first) + 15) / 16 * 16;
    for (std::int64_t g = 0; g < matrix.groups(); ++g) {
      const std::int64_t begin = g * matrix.group_inputs(), end = std::min(begin + matrix.group_inputs(), inputs_);
      for (std::int64_t at = begin; at < end; at += word_inputs)
        for (std::int64_t o = first; o < first + lanes; ++o) {
          std::uint32_t word = 0;
          for (std::int64_t j = 0; j < word_inputs && at + j < end && o < outputs_; ++j) {
            std::uint32_t code = matrix.codes[static_cast<std::size_t>(o * inputs_ + at + j)];
            if (flipped) code = (code + 128) & 0xff;
            const std::int64_t place = bits == 4 ? (j < 4 ? 8 * j : 8 * (j - 4) + 4) : bits * j;
            word |= code << place;
          }
          put(bytes, word, 4);
        }
      for (std::int64_t o = first; o < first + lanes && format.scale != Scale::none; ++o)
        put(bytes, o < outputs_ ? matrix.scales[static_cast<std::size_t>(o * matrix.groups() + g)] : 0,
            format.scale == Scale::f32 ? 4 : 2);
      for (std::int64_t o = first; o < first + lanes && format.offset != Offset::none; ++o)
        put(bytes, o < outputs_ ? matrix.offsets[static_cast<std::size_t>(o * matrix.groups() + g)] : 0,
            format.offset == Offset::minimum ? 2 : 1);
    }
  }
  bytes_ = static_cast<std::int64_t>(bytes.size());
  // The memory ends where the matrix ends, so that AddressSanitizer sees a read beyond it.
  storage_.reserve(guard_bytes + 64 + static_cast<std::size_t>(misalign_by) + bytes.size());
  const auto start = reinterpret_cast<std::uintptr_t>(storage_.data()) + guard_bytes;
  begin_ = guard_bytes + (64 - start % 64) % 64 + static_cast<std::size_t>(misalign_by);
  storage_.assign(begin_, std::byte{0xff});
  storage_.insert(storage_.end(), bytes.begin(), bytes.end());
}

PackedMatrix Packed::matrix() const {
  return {.data = storage_.data() + begin_, .outputs = outputs_, .inputs = inputs_, .format = format_};
}

Product64 product64(const Values& x, const CodedMatrix& weight, bool minimums_wait) {
  const std::int64_t inputs = weight.inputs, tokens = static_cast<std::int64_t>(x.size()) / inputs;
  const bool integers = has_int8_inputs(weight.format),
             apart = minimums_wait && weight.format.offset == Offset::minimum;
  std::vector<RoundedRow> rows;
  for (std::int64_t t = 0; t < tokens && integers; ++t) {
    const double* row = x.data() + t * inputs;
    const bool rotated = weight.format.input == LinearInput::int8_rotated;
    rows.push_back(rounded_row(rotated ? rotated_row(row, inputs).data() : row, inputs));
  }
  Product64 product;
  product.y.resize(static_cast<std::size_t>(tokens * weight.outputs));
  product.size.resize(product.y.size());
  Values w(static_cast<std::size_t>(inputs));
  std::vector<std::int32_t> numbers(w.size());
  for (std::int64_t o = 0; o < weight.outputs; ++o) {
    for (std::int64_t i = 0; i < inputs; ++i) {
      w[static_cast<std::size_t>(i)] = weight.value(o, i);
      if (integers) numbers[static_cast<std::size_t>(i)] = weight.number(o, i);
    }
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto at = static_cast<std::size_t>(t * weight.outputs + o);
      double sum = 0.0, squares = 0.0;
      for (std::size_t i = 0; i < w.size(); ++i) {
        const double input = integers
                                 ? rows[static_cast<std::size_t>(t)].scale * rows[static_cast<std::size_t>(t)].codes[i]
                                 : x[static_cast<std::size_t>(t * inputs) + i];
        sum += input * w[i];
        const double minimum =
            apart ? double{weight.minimum(o, static_cast<std::int64_t>(i) / weight.group_inputs())} : 0.0;
        squares += std::pow(input * (w[i] - minimum), 2) + std::pow(input * minimum, 2);
      }
      if (integers) {
        const RoundedRow& row = rows[static_cast<std::size_t>(t)];
        sum = 0.0;
        if (weight.format.offset == Offset::minimum) squares = 0.0;
        for (std::int64_t g = 0; g < weight.groups(); ++g) {
          std::int64_t products = 0, codes = 0;
          for (std::int64_t i = g * weight.group_inputs(); i < std::min((g + 1) * weight.group_inputs(), inputs); ++i) {
            products += std::int64_t{row.codes[static_cast<std::size_t>(i)]} * numbers[static_cast<std::size_t>(i)];
            codes += row.codes[static_cast<std::size_t>(i)];
          }
          const double scaled = static_cast<double>(weight.scale(o, g)) * static_cast<double>(products),
                       minimums = static_cast<double>(weight.minimum(o, g)) * static_cast<double>(codes);
          sum += scaled + minimums;
          if (weight.format.offset == Offset::minimum)
            squares += row.scale * row.scale * (scaled * scaled + minimums * minimums);
        }
        sum *= row.scale;
      }
      product.y[at] = sum;
      product.size[at] = std::sqrt(squares);
    }
  }
  return product;
}

Values linear64(const Values& x, const CodedMatrix& weight, const Values& bias) {
  Values y = product64(x, weight).y;
  for (std::size_t i = 0; i < y.size() && !bias.empty(); ++i) y[i] += bias[i % bias.size()];
  return y;
}

}  // namespace lamella::cpu::testing
