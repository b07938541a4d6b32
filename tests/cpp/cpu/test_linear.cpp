#include "float64.h"
#include "kernel_testing.h"

namespace lamella::cpu::testing {
namespace {

class Linear : public KernelTest {
 protected:
  void compare(std::int64_t tokens, std::int64_t inputs, std::int64_t outputs, bool y_f32, int workers) {
    SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << inputs << " inputs, " << outputs << " outputs, "
                                      << workers << " workers");
    Cells x(dtype(), normal(tokens * inputs)), weight(dtype(), normal(outputs * inputs));
    Cells y(y_f32 ? DataType::f32 : dtype(), tokens * outputs);
    run(kernels().linear,
        LinearArgs{.x = x.data(),
                   .weight = weight.data(),
                   .y = y.data(),
                   .y_f32 = y_f32,
                   .tokens = tokens,
                   .inputs = inputs,
                   .outputs = outputs},
        workers);
    expect_close(y, linear64(x.values(), weight.values(), {}, inputs), bound_of(y_f32 ? DataType::f32 : dtype()));
  }
};

TEST_P(Linear, RandomShapes) {
  for (int i = 0; i < 40; ++i)
    compare(draw(1, 9), draw_width(), draw_width(), draw(0, 1) == 1, static_cast<int>(draw(1, 5)));
}

TEST_P(Linear, MoreTokensThanATile) {
  for (const std::int64_t tokens : {31, 32, 33, 65, 70}) compare(tokens, draw_width(), draw_width(), false, 2);
}

TEST_P(Linear, RowsOfSeveralChunks) {  // sums are stored and loaded again between chunks of 4 KiB
  for (const std::int64_t inputs : {1023, 1024, 1025, 2048, 2049, 4100, 5000})
    compare(draw(8, 40), inputs, draw(1, 9), false, 1);
}

TEST_P(Linear, NotANumberStaysInItsRowAndColumn) {
  const std::int64_t inputs = 40, outputs = 9, tokens = 5;
  Cells x(dtype(), normal(tokens * inputs)), weight(dtype(), normal(outputs * inputs)), y(dtype(), tokens * outputs);
  x.set(2 * inputs + 39, NAN);
  weight.set(7 * inputs + 3, INFINITY);
  run(kernels().linear, LinearArgs{.x = x.data(),
                                   .weight = weight.data(),
                                   .y = y.data(),
                                   .y_f32 = false,
                                   .tokens = tokens,
                                   .inputs = inputs,
                                   .outputs = outputs});
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t o = 0; o < outputs; ++o) {
      EXPECT_EQ(std::isnan(y.at(t * outputs + o)), t == 2) << t << ", " << o;
      EXPECT_EQ(std::isinf(y.at(t * outputs + o)), t != 2 && o == 7) << t << ", " << o;
    }
}

INSTANTIATE_TEST_SUITE_P(Targets, Linear, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
