#include "float64.h"
#include "kernel_testing.h"

namespace lamella::cpu::testing {
namespace {

class Norm : public KernelTest {
 protected:
  void compare(NormKind kind, bool with_bias, std::int64_t tokens, std::int64_t width, double mean, int workers,
               double bound) {
    SCOPED_TRACE(::testing::Message() << tokens << " tokens, width " << width << ", bias " << with_bias << ", "
                                      << workers << " workers");
    constexpr float eps = 1e-5F;
    Cells x(dtype(), normal(tokens * width, 1.0, mean)), y(dtype(), tokens * width);
    Cells weight(DataType::f32, normal(width, 0.3, 1.0)), bias(DataType::f32, normal(width));
    run(kernels().norm,
        NormArgs{.x = x.data(),
                 .y = y.data(),
                 .weight = weight.floats(),
                 .bias = with_bias ? bias.floats() : nullptr,
                 .kind = kind,
                 .eps = eps,
                 .tokens = tokens,
                 .width = width},
        workers);
    expect_close(y, norm64(kind, x.values(), weight.values(), with_bias ? bias.values() : Values{}, eps, width), bound);
  }
};

TEST_P(Norm, RandomShapes) {
  for (int i = 0; i < 40; ++i)
    for (const NormKind kind : {NormKind::none, NormKind::layer_norm, NormKind::rms_norm}) {
      // A layer norm of one element is its bias, and of two nearly a sign: the metric needs wider rows.
      const std::int64_t width = draw_width() + (kind == NormKind::layer_norm ? 2 : 0);
      compare(kind, draw(0, 1) == 1, draw(1, 9), width, 0.0, static_cast<int>(draw(1, 5)), 5 * bound_of(dtype()));
    }
}

TEST_P(Norm, MeanFarFromZero) {  // one-pass variance would lose everything here: (30^2 + 1) - 30^2 in fp32
  compare(NormKind::layer_norm, true, 3, 1600, 30.0, 2, bound_of(dtype()) * 10);
}

INSTANTIATE_TEST_SUITE_P(Targets, Norm, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
