#include <bit>
#include <cmath>
#include <limits>

#include "kernel_testing.h"
#include "packed.h"

namespace lamella::cpu::testing {
namespace {

class GreedyHead : public KernelTest {
 protected:
  /// Rows of logits as they are met: many equal ones, of both zeros too, and now and then what is no number.
  Cells drawn_logits(std::int64_t rows, std::int64_t width) {
    Values values;
    const auto infinity = std::numeric_limits<double>::infinity();
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t kind = draw(0, 7);
      for (std::int64_t i = 0; i < width; ++i)
        values.push_back(kind == 0   ? -infinity
                         : kind == 1 ? static_cast<double>(draw(-1, 1)) * 0.0
                         : kind < 5  ? static_cast<double>(draw(-9, kind))
                                     : normal(1)[0]);
      if (kind == 6) values[values.size() - 1 - static_cast<std::size_t>(draw(0, width - 1))] = infinity;
      if (kind == 7) values[values.size() - 1 - static_cast<std::size_t>(draw(0, width - 1))] = std::nan("");
    }
    return {DataType::f32, values};
  }
  /// The best token by the words of contracts.h.
  static void expect_best(const Cells& logits, std::int64_t rows, std::int64_t width, const Cells& y) {
    for (std::int64_t row = 0; row < rows; ++row) {
      std::int64_t best = 0;
      bool sound = true;
      for (std::int64_t i = 0; i < width; ++i) {
        const double logit = logits.at(row * width + i);
        sound = sound && logit < std::numeric_limits<double>::infinity();
        if (logit > logits.at(row * width + best)) best = i;
      }
      const auto token = std::bit_cast<std::int32_t>(static_cast<float>(y.at(2 * row + 1)));
      EXPECT_EQ(token, sound ? static_cast<std::int32_t>(best) : -1) << "row " << row;
      if (sound) EXPECT_EQ(y.at(2 * row), logits.at(row * width + best)) << "row " << row;
      else EXPECT_TRUE(std::isnan(y.at(2 * row))) << "row " << row;
    }
  }
};

TEST_P(GreedyHead, BestToken) {
  for (int i = 0; i < 30; ++i) {
    const std::int64_t rows = draw(0, 20), width = draw_width();
    const int workers = static_cast<int>(draw(1, 5));
    SCOPED_TRACE(::testing::Message() << rows << " rows of " << width << ", " << workers << " workers");
    const Cells logits = drawn_logits(rows, width);
    Cells y(DataType::f32, 2 * rows);
    run(kernels().best_token,
        BestTokenArgs{
            .logits = static_cast<const float*>(logits.data()), .y = y.floats(), .tokens = rows, .width = width},
        workers);
    y.expect_intact();
    expect_best(logits, rows, width, y);
  }
}

TEST_P(GreedyHead, GivesTheBitsOfLinearBiasAndBestToken) {
  for (const WeightFormat& format : all_formats()) {
    const std::int64_t rows = draw(0, 9) == 0 ? 0 : draw_tokens(), inputs = draw_inputs(), outputs = draw_outputs();
    const int workers = static_cast<int>(draw(1, 9));
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << rows << " rows of " << inputs << ", " << outputs
                                      << " outputs, " << workers << " workers");
    // Few different outputs, so that equals are met; a row of NaN now and then.
    CodedMatrix codes = random_matrix(random_, format, outputs, inputs);
    Values x = normal(rows * inputs);
    if (rows > 0 && draw(0, 2) == 0) x[static_cast<std::size_t>(draw(0, rows * inputs - 1))] = std::nan("");
    if (rows > 1 && draw(0, 2) == 0)
      for (std::int64_t i = 0; i < inputs; ++i) x[static_cast<std::size_t>(i)] = 0.0;
    const Packed weight(codes, 4 * draw(0, 4));
    const Cells input(dtype(), x);
    Cells bias(DataType::f32, normal(outputs)), logits(DataType::f32, rows * outputs), y(DataType::f32, 2 * rows),
        want(DataType::f32, 2 * rows);
    const bool biased = draw(0, 1) == 1;
    const ScratchBounds bounds{.max_inputs = inputs, .max_rows = rows, .workers = workers};
    run(kernels().linear,
        LinearArgs{.x = input.data(), .weight = weight.matrix(), .y = logits.data(), .y_f32 = true, .tokens = rows},
        workers, bounds);
    if (biased)
      run(kernels().add_bias, AddBiasArgs{.x = logits.data(),
                                          .bias = bias.floats(),
                                          .y = logits.data(),
                                          .f32 = true,
                                          .tokens = rows,
                                          .width = outputs});
    run(kernels().best_token,
        BestTokenArgs{.logits = logits.floats(), .y = want.floats(), .tokens = rows, .width = outputs});
    expect_best(logits, rows, outputs, want);
    if (kernels().greedy_head == nullptr) continue;  // the oracle fuses nothing
    run(kernels().greedy_head,
        GreedyHeadArgs{.x = input.data(),
                       .head = {weight.matrix(), biased ? bias.floats() : nullptr},
                       .y = y.floats(),
                       .tokens = rows,
                       .sbi_gemm = draw(0, 1) == 1},
        workers, bounds);
    y.expect_intact();
    EXPECT_EQ(y.bits(), want.bits());
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, GreedyHead, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
