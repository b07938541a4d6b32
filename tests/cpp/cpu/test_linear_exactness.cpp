// What a linear promises to the bit, in every format: a token's row does not depend on its company, its place, the
// number of workers, where anything lies in memory or whether few tokens go the way of many; weight-only formats give
// what fp32 weights of the same values give, or, where pairs of bf16 are multiplied, what bf16 weights of their codes
// give, times the scale; the sums of int8 inputs are whole numbers, the same on every instruction set.
#include <algorithm>
#include <bit>
#include <functional>

#include "base/thread_team.h"
#include "kernel_testing.h"
#include "packed.h"
#include "seed.h"

namespace lamella::cpu::testing {
namespace {

Values rows_of(const Values& all, const std::vector<std::int64_t>& rows, std::int64_t width) {
  Values some;
  for (const std::int64_t row : rows)
    some.insert(some.end(), all.begin() + row * width, all.begin() + (row + 1) * width);
  return some;
}

/// The matrix and its inputs with the second half of the inputs before the first, in whole groups: the same products in
/// another order.
CodedMatrix turned(const CodedMatrix& matrix) {
  CodedMatrix other = matrix;
  const std::int64_t groups = matrix.format.group == 0 ? 1 : matrix.groups(),
                     by = matrix.format.group == 0 ? matrix.inputs / 2 : groups / 2 * matrix.format.group;
  for (std::int64_t o = 0; o < matrix.outputs; ++o) {
    const auto turn = [&](std::vector<std::uint32_t>& values, std::int64_t width, std::int64_t places) {
      if (!values.empty())
        std::rotate(values.begin() + o * width, values.begin() + o * width + places, values.begin() + (o + 1) * width);
    };
    turn(other.codes, matrix.inputs, by);
    turn(other.scales, groups, groups / 2);
    turn(other.offsets, groups, groups / 2);
  }
  return other;
}

Values turned(const Values& x, const CodedMatrix& matrix) {
  const std::int64_t by = matrix.format.group == 0 ? matrix.inputs / 2 : matrix.groups() / 2 * matrix.format.group;
  Values other = x;
  for (auto row = other.begin(); row != other.end(); row += matrix.inputs)
    std::rotate(row, row + by, row + matrix.inputs);
  return other;
}

class LinearExactness : public KernelTest {
 protected:
  [[nodiscard]] static Cells linear(const KernelTable& kernels, const Packed& weight, const Values& x, int workers,
                                    bool y_f32 = true, std::int64_t misalign_by = 1, bool sbi_gemm = true) {
    const PackedMatrix matrix = weight.matrix();
    const std::int64_t tokens = static_cast<std::int64_t>(x.size()) / matrix.inputs;
    Cells xs(kernels.dtype, static_cast<std::int64_t>(x.size()), misalign_by);
    for (std::int64_t i = 0; i < xs.size(); ++i) xs.set(i, x[static_cast<std::size_t>(i)]);
    Cells y(y_f32 ? DataType::f32 : kernels.dtype, tokens * matrix.outputs, misalign_by);
    run(kernels.linear,
        LinearArgs{
            .x = xs.data(), .weight = matrix, .y = y.data(), .y_f32 = y_f32, .tokens = tokens, .sbi_gemm = sbi_gemm},
        workers, {.max_inputs = matrix.inputs, .max_outputs = matrix.outputs});
    y.expect_intact();
    return y;
  }

  CodedMatrix draw_matrix(const WeightFormat& format, std::int64_t outputs, std::int64_t inputs) {
    return draw(0, 3) == 0 ? extreme_matrix(random_, format, outputs, inputs)
                           : random_matrix(random_, format, outputs, inputs);
  }

  /// Computes the rows of `x` that are listed, on some workers.
  using Runner = std::function<Cells(const std::vector<std::int64_t>& rows, int workers)>;

  /// Draws calls with any rows, in any order, some more than once, and compares every row's bits with those that the
  /// row has when all are computed at once by one worker. Returns how many of the calls differ.
  std::int64_t calls_that_differ(std::int64_t all_rows, int calls, const Runner& runner) {
    std::vector<std::int64_t> every(static_cast<std::size_t>(all_rows));
    for (std::int64_t r = 0; r < all_rows; ++r) every[static_cast<std::size_t>(r)] = r;
    const std::vector<std::byte> whole = runner(every, 1).bits();
    const std::size_t width = whole.size() / every.size();
    std::int64_t differ = 0;
    for (int call = 0; call < calls; ++call) {
      std::vector<std::int64_t> rows(static_cast<std::size_t>(call == 0 ? 1 : draw_tokens()));
      for (std::int64_t& row : rows) row = draw(0, all_rows - 1);
      const std::vector<std::byte> some = runner(rows, static_cast<int>(draw(1, 5))).bits();
      bool same = some.size() == rows.size() * width;
      for (std::size_t r = 0; r < rows.size() && same; ++r)
        same = std::equal(some.begin() + static_cast<std::ptrdiff_t>(r * width),
                          some.begin() + static_cast<std::ptrdiff_t>((r + 1) * width),
                          whole.begin() + rows[r] * static_cast<std::ptrdiff_t>(width));
      differ += same ? 0 : 1;
    }
    return differ;
  }
};

TEST_P(LinearExactness, CompanyPlaceWorkersAlignmentAndWayChangeNothing) {
  for (const WeightFormat& format : all_formats())
    for (int i = 0; i < 3; ++i) {
      const std::int64_t rows = draw_tokens(), inputs = draw_inputs(), outputs = draw_outputs();
      const bool y_f32 = draw(0, 1) == 1;
      SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << rows << " rows, " << inputs << " inputs, "
                                        << outputs << " outputs");
      const CodedMatrix weight = draw_matrix(format, outputs, inputs);
      const Values x = normal(rows * inputs);
      EXPECT_EQ(calls_that_differ(rows, 5,
                                  [&](const std::vector<std::int64_t>& some, int workers) {
                                    return linear(kernels(), Packed(weight, 4 * draw(0, 15)), rows_of(x, some, inputs),
                                                  workers, y_f32, draw(0, 16), draw(0, 1) == 1);
                                  }),
                0);
    }
}

TEST_P(LinearExactness, ThreadsThatTakeFromEachOtherLeaveNothingAndChangeNothing) {
  ThreadTeam team(3);
  std::vector<WorkShare> shares(static_cast<std::size_t>(team.size()));
  std::uint32_t round = 0;
  for (const WeightFormat& format : all_formats()) {
    const std::int64_t rows = draw_tokens(), inputs = draw_inputs(), outputs = draw_outputs();
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << rows << " rows, " << inputs << " inputs, "
                                      << outputs << " outputs");
    const Packed weight(draw_matrix(format, outputs, inputs), 0);
    const Values x = normal(rows * inputs);
    const Cells xs(dtype(), x), want = linear(kernels(), weight, x, 1);
    Cells y(DataType::f32, rows * outputs);
    LinearArgs args{.x = xs.data(), .weight = weight.matrix(), .y = y.data(), .y_f32 = true, .tokens = rows};
    args.shared_inputs = share_inputs(args);
    const ScratchBounds bounds{.max_inputs = inputs, .max_outputs = outputs, .max_tokens = rows};
    GuardedScratch shared(shared_bytes(bounds));
    std::vector<GuardedScratch> own;
    for (int index = 0; index < team.size(); ++index) own.emplace_back(scratch_bytes(bounds));
    std::vector<std::int64_t> late(own.size());
    for (int phase = 0; phase < phases(args); ++phase) {
      ++round;
      for (std::int64_t& turns : late) turns = draw(0, 1) * draw(0, 20000);
      team.run([&](int index) {
        for (volatile std::int64_t turn = 0; turn < late[static_cast<std::size_t>(index)];) turn = turn + 1;
        kernels().linear(args, Worker{.index = index,
                                      .count = team.size(),
                                      .scratch = own[static_cast<std::size_t>(index)].scratch(),
                                      .shared = shared.scratch(),
                                      .phase = phase,
                                      .shares = shares.data(),
                                      .round = round});
      });
      for (const WorkShare& share : shares)
        EXPECT_TRUE(WorkShare::round_of(share.state) != round ||
                    WorkShare::begin_of(share.state) >= WorkShare::end_of(share.state));
    }
    EXPECT_EQ(y.bits(), want.bits());
  }
}

TEST_P(LinearExactness, AnotherOrderOfTheSumsIsNoticed) {
  if (lamella::testing::sanitized) GTEST_SKIP() << "tests the tests above, slowly where a sanitizer is";
  if (GetParam().set == KernelSet::reference) return;  // its float64 sums round to the same fp32 in any order
  for (const WeightFormat& format : all_formats()) {
    if (format.input == LinearInput::int8_rotated) continue;  // other lines would rotate together
    const std::int64_t rows = 40, inputs = 384, outputs = 70;
    if (format.group > inputs) continue;  // one group, and groups are what turns
    SCOPED_TRACE(to_string(format));
    // With int8 inputs the sums of groups with alike scales are exact too: scales far apart make them round.
    const bool integers = has_int8_inputs(format);
    const CodedMatrix weight = integers ? extreme_matrix(random_, format, outputs, inputs)
                                        : random_matrix(random_, format, outputs, inputs),
                      other_weight = turned(weight);
    const Packed packed(weight), other_packed(other_weight);
    const Values x = normal(rows * inputs), other_x = turned(x, weight);
    const auto reordered = [&](const std::vector<std::int64_t>& some, bool other) {
      return linear(kernels(), other ? other_packed : packed, rows_of(other ? other_x : x, some, inputs), 1);
    };
    // As a kernel would that turned to another order for few tokens, or on more than two workers.
    const std::int64_t by_tokens = calls_that_differ(
        rows, 8, [&](const std::vector<std::int64_t>& some, int) { return reordered(some, some.size() <= 20); });
    const std::int64_t by_workers = calls_that_differ(
        rows, 24, [&](const std::vector<std::int64_t>& some, int workers) { return reordered(some, workers > 2); });
    if (integers && format.group == 0) {
      EXPECT_EQ(by_tokens + by_workers, 0);  // whole numbers know no order
    } else {
      EXPECT_GE(by_tokens, 1);
      EXPECT_GE(by_workers, 1);  // all 24 draws on two workers or fewer: 3 in 10^10
    }
  }
}

TEST_P(LinearExactness, WeightOnlyFormatsAreFp32OnTheirValues) {
  for (const WeightFormat& format : all_formats()) {
    if (has_int8_inputs(format) || multiplies_pairs(format)) continue;
    for (int i = 0; i < 4; ++i) {
      const std::int64_t inputs = draw_inputs(), outputs = draw_outputs();
      SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << inputs << " inputs, " << outputs << " outputs");
      const CodedMatrix weight = draw_matrix(format, outputs, inputs);
      CodedMatrix wide{.format = formats::f32, .outputs = outputs, .inputs = inputs};
      for (const double value : weight.values())
        wide.codes.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(value)));
      const Values x = normal(draw_tokens() * inputs);
      const Cells narrow_y = linear(kernels(), Packed(weight), x, static_cast<int>(draw(1, 5)));
      EXPECT_EQ(narrow_y.bits(), linear(kernels(), Packed(wide), x, static_cast<int>(draw(1, 5))).bits());
      if (i > 0 || inputs < 200 || outputs < 16 || GetParam().set == KernelSet::reference) continue;
      // The comparison can fail: the same values in another order (one sum alone often rounds the same way).
      EXPECT_NE(narrow_y.bits(), linear(kernels(), Packed(turned(wide)), turned(x, wide), 1).bits());
    }
  }
}

TEST_P(LinearExactness, CodesThatMeetPairsAreBf16WeightsTimesTheirScale) {
  if (!multiplies_pairs(formats::int8_weight_only)) return;
  for (int i = 0; i < 20; ++i) {
    const std::int64_t inputs = draw_inputs(), outputs = draw_outputs();
    SCOPED_TRACE(::testing::Message() << inputs << " inputs, " << outputs << " outputs");
    const CodedMatrix coded = draw_matrix(formats::int8_weight_only, outputs, inputs);
    CodedMatrix plain{.format = formats::bf16, .outputs = outputs, .inputs = inputs};
    for (std::int64_t o = 0; o < outputs; ++o)
      for (std::int64_t k = 0; k < inputs; ++k)
        plain.codes.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(coded.number(o, k))) >> 16);
    const std::int64_t tokens = draw_tokens();
    const Values x = normal(tokens * inputs);
    const Cells y = linear(kernels(), Packed(coded), x, 1), unscaled = linear(kernels(), Packed(plain), x, 1);
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t o = 0; o < outputs; ++o) {
        const float want = static_cast<float>(unscaled.at(t * outputs + o)) * coded.scale(o, 0);
        EXPECT_EQ(static_cast<float>(y.at(t * outputs + o)), want) << t << ", " << o;
      }
  }
}

TEST_P(LinearExactness, NarrowActivationsAreFp32OnTheirValues) {
  if (dtype() == DataType::f32) return;
  for (const WeightFormat& format : all_formats()) {
    if (multiplies_pairs(format)) continue;
    const std::int64_t inputs = draw_inputs(), outputs = draw_outputs();
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << inputs << " inputs, " << outputs << " outputs");
    const Packed weight(draw_matrix(format, outputs, inputs));
    const Values x = Cells(dtype(), normal(draw_tokens() * inputs)).values();
    const Cells y = linear(kernels(), weight, x, 1);
    EXPECT_EQ(y.bits(), linear(kernel_table(GetParam().set, DataType::f32), weight, x, 1).bits());
    Cells stored(dtype(), y.values());
    EXPECT_EQ(linear(kernels(), weight, x, 1, false).bits(), stored.bits());  // one rounding of the fp32 result
  }
}

TEST_P(LinearExactness, IntegerSumsAreExact) {
  // Scales of one, whole minimums and rows whose largest input is 127: every result is a whole number below 2^24, and
  // the largest codes meet the largest inputs, where saturating products would show.
  for (const WeightFormat& format : all_formats()) {
    if (format.input != LinearInput::int8) continue;
    for (int i = 0; i < 6; ++i) {
      const std::int64_t inputs = std::min<std::int64_t>(draw_inputs(), 400), outputs = draw_outputs(),
                         tokens = draw_tokens();
      SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << tokens << " tokens, " << inputs << " inputs, "
                                        << outputs << " outputs");
      CodedMatrix weight = extreme_matrix(random_, format, outputs, inputs);
      for (std::uint32_t& scale : weight.scales) scale = format.scale == Scale::f32 ? 0x3f800000 : 0x3c00;
      if (format.offset == Offset::minimum)
        for (std::uint32_t& minimum : weight.offsets)
          minimum = std::bit_cast<std::uint16_t>(static_cast<_Float16>(-draw(0, 15)));
      Values x;
      for (std::int64_t t = 0; t < tokens; ++t) {
        const bool constant = draw(0, 2) == 0;
        for (std::int64_t j = 0; j < inputs; ++j)
          x.push_back(static_cast<double>(j == 0 || constant ? 127 : draw(-127, 127)));
      }
      const Product64 want = product64(x, weight);
      expect_within(linear(kernels(), Packed(weight), x, static_cast<int>(draw(1, 5))), want.y,
                    Values(want.y.size(), 0.0));
    }
  }
}

TEST_P(LinearExactness, Int8ByTheRowIsTheSameOnEverySet) {
  if (GetParam().set == KernelSet::reference) return;  // float64 between the roundings
  for (int i = 0; i < 20; ++i) {
    const std::int64_t inputs = i == 0 ? 5000 : draw_inputs(), outputs = draw_outputs();
    SCOPED_TRACE(::testing::Message() << inputs << " inputs, " << outputs << " outputs");
    const Packed weight(draw_matrix(formats::int8, outputs, inputs));
    const Values x = normal(draw_tokens() * inputs);
    EXPECT_EQ(linear(kernels(), weight, x, 1).bits(),
              linear(kernel_table(KernelSet::baseline, dtype()), weight, x, 1).bits());
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, LinearExactness, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
