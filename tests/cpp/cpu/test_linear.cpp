// Linears in every format against float64: on the de-quantised weights, or exact in the codes where inputs are int8.
#include <algorithm>
#include <cmath>

#include "kernel_testing.h"
#include "packed.h"
#include "seed.h"

namespace lamella::cpu::testing {
namespace {

class Linear : public KernelTest {
 protected:
  /// Tokens of all kinds: plain ones, zeros, tiny, subnormal, huge, with one large input or many, of whole numbers, zero
  /// in whole groups.
  Values token_rows(std::int64_t tokens, std::int64_t inputs) {
    const bool narrow = dtype() == DataType::f16;
    Values x = normal(tokens * inputs);
    for (std::int64_t t = 0; t < tokens; ++t) {
      double* row = x.data() + t * inputs;
      const auto times = [&](double factor) { std::for_each_n(row, inputs, [=](double& v) { v *= factor; }); };
      const auto times_some = [&](std::int64_t in, double factor) {
        std::for_each_n(row, inputs, [&](double& v) { v *= draw(1, in) == 1 ? factor : 1.0; });
      };
      const double subnormal = narrow ? 1e-6 : 1e-40;
      switch (draw(0, 15)) {
        case 0: times(0.0); break;
        case 1: times(narrow ? 1e-7 : 1e-33); break;  // int8 inputs: zero where there is room, below 2^-100
        case 2: times(narrow ? 1e-5 : 1e-25); break;
        case 3: times(narrow ? 1e4 : 1e27); break;
        case 4: row[draw(0, inputs - 1)] = 300.0; break;
        case 5: std::for_each_n(row, inputs, [](double& v) { v = std::nearbyint(40.0 * v); }); break;
        case 6: times_some(20, 3e3); break;
        case 7: times(subnormal); break;  // of the inputs' type
        case 8: times_some(2, subnormal); break;
        case 9: times_some(3, -0.0); break;
        case 10:
          for (std::int64_t at = 0; at < inputs; at += 32)
            if (draw(0, 1) == 0) std::fill_n(row + at, std::min<std::int64_t>(32, inputs - at), 0.0);
          break;
        default: break;
      }
    }
    return x;
  }

  void compare(const CodedMatrix& weight, std::int64_t tokens, double bound = 1e-5) {
    const bool y_f32 = draw(0, 1) == 1;
    const int workers = static_cast<int>(draw(1, 5));
    const std::int64_t misalign_by = 4 * draw(0, 4), inputs = weight.inputs;
    SCOPED_TRACE(::testing::Message() << to_string(weight.format) << ": " << tokens << " tokens, " << inputs
                                      << " inputs, " << weight.outputs << " outputs, " << workers << " workers, weight "
                                      << misalign_by << " bytes off, results in fp32 " << y_f32);
    const Packed packed(weight, misalign_by);
    Cells x(dtype(), token_rows(tokens, inputs)), y(y_f32 ? DataType::f32 : dtype(), tokens * weight.outputs);
    run(kernels().linear,
        LinearArgs{.x = x.data(), .weight = packed.matrix(), .y = y.data(), .y_f32 = y_f32, .tokens = tokens}, workers,
        {.max_inputs = inputs, .max_outputs = weight.outputs});
    const Product64 want = product64(x.values(), weight, multiplies_pairs(weight.format));
    Values slack = want.size;
    for (std::size_t i = 0; i < slack.size(); ++i) slack[i] = bound * std::max(slack[i], std::abs(want.y[i]));
    add_underflow(slack, x, weight);
    expect_within(y, want.y, slack);
  }

 private:
  /// What may get lost at the lower end of fp32's range. vdpbf16ps, which bf16 inputs may meet that are not rounded to
  /// int8, takes subnormals for zero, both what it reads and what it writes; codes meet it before their scale.
  void add_underflow(Values& slack, const Cells& x, const CodedMatrix& weight) const {
    const bool flushes = dtype() == DataType::bf16 && !has_int8_inputs(weight.format);
    const double smallest = flushes ? 0x1p-126 : 0x1p-149;
    const auto outputs = static_cast<std::size_t>(weight.outputs);
    double largest_weight = 0.0;
    for (const double w : weight.values()) largest_weight = std::max(largest_weight, std::abs(w));
    for (std::int64_t o = 0; o < weight.outputs && flushes; ++o)
      for (std::int64_t g = 0; g < weight.groups(); ++g)
        largest_weight =
            std::max({largest_weight, std::abs(double{weight.scale(o, g)}), std::abs(double{weight.minimum(o, g)})});
    for (std::size_t i = 0; i < slack.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i / outputs) * weight.inputs;
      double factor = 1.0;
      for (std::int64_t j = 0; j < weight.inputs && flushes; ++j)
        factor = std::max(factor, std::max(std::abs(x.at(row + j)), largest_weight));
      slack[i] += factor * smallest * static_cast<double>(weight.inputs + 1);
    }
  }
};

TEST_P(Linear, RandomShapesInEveryFormat) {
  for (const WeightFormat& format : all_formats())
    for (int i = 0; i < 5; ++i) compare(random_matrix(random_, format, draw_outputs(), draw_inputs()), draw_tokens());
}

TEST_P(Linear, ExtremeCodesInEveryFormat) {
  for (const WeightFormat& format : all_formats())
    for (int i = 0; i < 5; ++i) compare(extreme_matrix(random_, format, draw_outputs(), draw_inputs()), draw_tokens());
}

TEST_P(Linear, TileBordersInEveryFormat) {
  for (const WeightFormat& format : all_formats())
    for (const std::int64_t outputs : {1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 130})
      compare(random_matrix(random_, format, outputs, draw(1, 70)), draw(1, 9));
}

TEST_P(Linear, EveryNumberOfTokens) {
  for (std::int64_t tokens = 1; tokens <= 40; ++tokens) {
    const auto pick = draw(0, static_cast<std::int64_t>(all_formats().size()) - 1);
    compare(random_matrix(random_, all_formats()[static_cast<std::size_t>(pick)], draw_outputs(), draw_inputs()),
            tokens);
  }
  for (const std::int64_t tokens : {63, 64, 65, 97, 130, 256, 257, 263, 530}) {
    const auto pick = draw(0, static_cast<std::int64_t>(all_formats().size()) - 1);
    compare(random_matrix(random_, all_formats()[static_cast<std::size_t>(pick)], draw(1, 70), draw(1, 70)), tokens);
  }
}

TEST_P(Linear, LongRows) {
  for (const WeightFormat& format : all_formats())
    compare(random_matrix(random_, format, draw(1, 70), draw(1024, 5000)), draw(1, 9), 2e-5);
}

TEST_P(Linear, NotANumberStaysInItsRowAndColumn) {
  const std::int64_t inputs = 40, outputs = 19, tokens = 5;
  for (const WeightFormat& format : all_formats()) {
    if (has_int8_inputs(format)) continue;
    SCOPED_TRACE(to_string(format));
    CodedMatrix weight = random_matrix(random_, format, outputs, inputs);
    // Loading refuses fp16 weights that are not finite, and kernels need not know them.
    const bool has_infinity = format == formats::f32 || format == formats::bf16;
    if (has_infinity) weight.codes[7 * inputs + 3] = format == formats::f32 ? 0x7f800000 : 0x7f80;
    const Packed packed(weight);
    Cells x(dtype(), normal(tokens * inputs)), y(dtype(), tokens * outputs);
    x.set(2 * inputs + 39, NAN);
    run(kernels().linear,
        LinearArgs{.x = x.data(), .weight = packed.matrix(), .y = y.data(), .y_f32 = false, .tokens = tokens}, 1,
        {.max_inputs = inputs, .max_outputs = outputs});
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t o = 0; o < outputs; ++o) {
        EXPECT_EQ(std::isnan(y.at(t * outputs + o)), t == 2) << t << ", " << o;
        EXPECT_EQ(std::isinf(y.at(t * outputs + o)), has_infinity && t != 2 && o == 7) << t << ", " << o;
      }
  }
}

TEST_P(Linear, AnInfinityLeavesNothingOfItsRowFiniteAndOtherRowsAlone) {
  for (const WeightFormat& format : all_formats()) {
    if (has_int8_inputs(format)) continue;
    const std::int64_t inputs = draw_inputs(), outputs = draw_outputs(), tokens = draw(2, 20),
                       bad = draw(0, tokens - 1);
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << tokens << " tokens, " << inputs << " inputs, "
                                      << outputs << " outputs, infinity in row " << bad);
    const Packed packed(random_matrix(random_, format, outputs, inputs));
    Cells x(dtype(), normal(tokens * inputs));
    const auto multiply = [&] {
      Cells y(DataType::f32, tokens * outputs);
      run(kernels().linear,
          LinearArgs{.x = x.data(), .weight = packed.matrix(), .y = y.data(), .y_f32 = true, .tokens = tokens},
          static_cast<int>(draw(1, 3)), {.max_inputs = inputs, .max_outputs = outputs});
      return y.values();
    };
    const Values before = multiply();
    x.set(bad * inputs + draw(0, inputs - 1), (draw(0, 1) == 0 ? 1.0 : -1.0) * static_cast<double>(INFINITY));
    const Values after = multiply();
    for (std::size_t i = 0; i < after.size(); ++i) {
      if (static_cast<std::int64_t>(i) / outputs == bad) {
        EXPECT_FALSE(std::isfinite(after[i])) << i;
      } else {
        EXPECT_EQ(after[i], before[i]) << i;
      }
    }
  }
}

TEST_P(Linear, NotANumberMakesAllOfItsRowNaNWhereInputsAreRounded) {
  const std::int64_t inputs = 40, outputs = 19, tokens = 5;
  for (const WeightFormat& format : all_formats()) {
    if (!has_int8_inputs(format)) continue;
    for (const double wrong :
         {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)}) {
      SCOPED_TRACE(to_string(format));
      const Packed packed(random_matrix(random_, format, outputs, inputs));
      Cells x(dtype(), normal(tokens * inputs)), y(DataType::f32, tokens * outputs);
      x.set(2 * inputs + draw(0, inputs - 1), wrong);
      run(kernels().linear,
          LinearArgs{.x = x.data(), .weight = packed.matrix(), .y = y.data(), .y_f32 = true, .tokens = tokens}, 1,
          {.max_inputs = inputs, .max_outputs = outputs});
      for (std::int64_t i = 0; i < tokens * outputs; ++i) EXPECT_EQ(std::isnan(y.at(i)), i / outputs == 2) << i;
    }
  }
}

/// A word of the layout: eight codes of an output's inputs 8 * word to 8 * word + 7, by SplitMix64's mixing.
std::uint32_t word_of(std::int64_t output, std::int64_t word) {
  std::uint64_t bits =
      (static_cast<std::uint64_t>(output) << 20 ^ static_cast<std::uint64_t>(word)) * 0x9e3779b97f4a7c15;
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111eb;
  return static_cast<std::uint32_t>(bits >> 32);
}

TEST_P(Linear, MoreThanTwoToThe31Elements) {
  if (!lamella::testing::full_stage()) GTEST_SKIP() << "1.1 GB: only where LAMELLA_STAGE=full";
  if (GetParam().set == KernelSet::reference) GTEST_SKIP() << "the reference takes a minute for it";
  constexpr std::int64_t group = 128, groups = 32, inputs = group * groups - 8,
                         outputs = (std::int64_t{1} << 31) / inputs + 77;
  static_assert(outputs * inputs > std::int64_t{1} << 31);
  // Scales of 2^-3 to 2^4, from words that no code uses.
  const auto scale_of = [](std::int64_t o, std::int64_t g) {
    return static_cast<std::uint16_t>(0x3000 + word_of(o, 1000 + g) % 0x1c00);
  };
  // Written in order, as the layout's comment says.
  std::vector<std::byte> storage(static_cast<std::size_t>((outputs + 15) / 16 * 16 * (inputs / 2 + 2 * groups)));
  std::byte* next = storage.data();
  const auto append = [&](auto value) {
    std::memcpy(next, &value, sizeof value);
    next += sizeof value;
  };
  for (std::int64_t first = 0; first < outputs; first += 64) {
    const std::int64_t end = first + (std::min<std::int64_t>(64, outputs - first) + 15) / 16 * 16;
    for (std::int64_t g = 0; g < groups; ++g) {
      for (std::int64_t word = g * group / 8; word < std::min((g + 1) * group, inputs) / 8; ++word)
        for (std::int64_t o = first; o < end; ++o) append(o < outputs ? word_of(o, word) : 0U);
      for (std::int64_t o = first; o < end; ++o) append(o < outputs ? scale_of(o, g) : std::uint16_t{0});
    }
  }
  std::vector<std::int64_t> sample = {0, 1, 63, 64, (std::int64_t{1} << 31) / inputs, outputs - 14, outputs - 1};
  for (std::int64_t o = 1; o * inputs / 2 < outputs * inputs; o *= 2) sample.push_back(std::min(o, outputs - 1));
  while (sample.size() < 100) sample.push_back(draw(0, outputs - 1));
  for (const LinearInput input : {LinearInput::dtype, LinearInput::int8, LinearInput::int8_rotated}) {
    const WeightFormat format{.element = Element::i4, .group = group, .scale = Scale::f16, .input = input};
    const PackedMatrix matrix{.data = storage.data(), .outputs = outputs, .inputs = inputs, .format = format};
    ASSERT_EQ(next - storage.data(), matrix.layout().total_bytes());
    CodedMatrix sampled{.format = format, .outputs = static_cast<std::int64_t>(sample.size()), .inputs = inputs};
    for (const std::int64_t o : sample) {
      for (std::int64_t i = 0; i < inputs; ++i)
        sampled.codes.push_back(word_of(o, i / 8) >> (i % 4 * 8 + i % 8 / 4 * 4) & 15U);
      for (std::int64_t g = 0; g < groups; ++g) sampled.scales.push_back(scale_of(o, g));
    }
    const std::int64_t tokens = 2;
    Cells x(dtype(), normal(tokens * inputs)), y(DataType::f32, tokens * outputs);
    run(kernels().linear, LinearArgs{.x = x.data(), .weight = matrix, .y = y.data(), .y_f32 = true, .tokens = tokens},
        3, {.max_inputs = inputs, .max_outputs = outputs});
    y.expect_intact();
    const Product64 want = product64(x.values(), sampled);
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::size_t s = 0; s < sample.size(); ++s) {
        const std::size_t at = static_cast<std::size_t>(t) * sample.size() + s;
        EXPECT_NEAR(y.at(t * outputs + sample[s]), want.y[at], 2e-5 * std::max(want.size[at], std::abs(want.y[at])))
            << to_string(format) << ", output " << sample[s];
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Linear, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
