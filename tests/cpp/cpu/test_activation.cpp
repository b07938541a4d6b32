#include <algorithm>
#include <cmath>
#include <limits>

#include "float64.h"
#include "kernel_testing.h"

namespace lamella::cpu::testing {
namespace {

constexpr Activation all_activations[] = {Activation::none, Activation::gelu, Activation::gelu_tanh, Activation::relu,
                                          Activation::silu, Activation::tanh, Activation::quick_gelu};

class Activate : public KernelTest {};

TEST_P(Activate, RandomShapes) {
  for (int i = 0; i < 10; ++i)
    for (const Activation kind : all_activations) {
      const std::int64_t width = draw_width(),
                         tokens = draw_rows(width);  // far below zero erf(x) + 1 cancels, here as in transformers
      const bool gated = draw(0, 1) == 1, f32 = draw(0, 1) == 1;
      const DataType type = f32 ? DataType::f32 : dtype();
      SCOPED_TRACE(::testing::Message() << "activation " << static_cast<int>(kind) << ", " << tokens << " x " << width
                                        << ", gated " << gated);
      Cells x(type, normal(tokens * width, 2.0)), up(type, normal(tokens * width)), y(type, tokens * width);
      run(kernels().activate,
          ActivateArgs{.x = x.data(),
                       .up = gated ? up.data() : nullptr,
                       .y = y.data(),
                       .activation = kind,
                       .f32 = f32,
                       .tokens = tokens,
                       .width = width},
          static_cast<int>(draw(1, 5)));
      Values want(x.values());
      for (std::size_t j = 0; j < want.size(); ++j)
        want[j] = activation64(kind, want[j]) * (gated ? up.at(static_cast<std::int64_t>(j)) : 1.0);
      expect_close(y, want, bound_of(type));
    }
}

/// The largest error over a dense sweep, in units of `ulp(result)`, at least those of 1e-6 for what cancels near zero.
double worst_error(const KernelTable& kernels, Activation kind, double low, double high, double floor_size) {
  constexpr std::int64_t count = 200'003;
  Values inputs(count);
  for (std::int64_t i = 0; i < count; ++i)
    inputs[static_cast<std::size_t>(i)] = low + (high - low) * static_cast<double>(i) / static_cast<double>(count - 1);
  Cells x(DataType::f32, inputs), y(DataType::f32, count);
  run(kernels.activate,
      ActivateArgs{
          .x = x.data(), .up = nullptr, .y = y.data(), .activation = kind, .f32 = true, .tokens = 1, .width = count});
  double worst = 0.0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double want = activation64(kind, x.at(i)), size = std::max(std::abs(want), floor_size);
    worst = std::max(worst, std::abs(y.at(i) - want) / (size * 0x1p-23));
  }
  return worst;
}

TEST_P(Activate, ErrorsOfTheFunctionsInUlp) {
  EXPECT_LE(worst_error(kernels(), Activation::tanh, -12, 12, 1e-30), 2.0);          // tanh itself
  EXPECT_LE(worst_error(kernels(), Activation::silu, -80, 80, 1e-30), 4.0);          // exponential
  EXPECT_LE(worst_error(kernels(), Activation::quick_gelu, -8, 8, 1e-30),
            10.0);     // 1.702 x rounds before it is exponentiated
  EXPECT_LE(worst_error(kernels(), Activation::gelu, 0, 8, 1e-30), 4.0);
  EXPECT_LE(worst_error(kernels(), Activation::gelu, -4, 0, 1e-30), 40.0);  // an exponential of up to -24 times its log
  EXPECT_LE(worst_error(kernels(), Activation::gelu, -8, 0, 1.0), 2.0);  // ends at -5.5: absolute
  EXPECT_LE(worst_error(kernels(), Activation::gelu_tanh, 0, 12, 1e-30), 4.0);
  EXPECT_LE(worst_error(kernels(), Activation::gelu_tanh, -4, 0, 1e-30), 40.0);
  EXPECT_LE(worst_error(kernels(), Activation::gelu_tanh, -12, 0, 1.0), 2.0);
}

TEST_P(Activate, Extremes) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const Values inputs = {infinity, -infinity, NAN, 0.0, -0.0, 3e38, -3e38, 1e-40, 88.7, 89.0, -87.3, -104.0};
  for (const Activation kind : all_activations) {
    Cells x(DataType::f32, inputs), y(DataType::f32, x.size());
    run(kernels().activate, ActivateArgs{.x = x.data(),
                                         .up = nullptr,
                                         .y = y.data(),
                                         .activation = kind,
                                         .f32 = true,
                                         .tokens = 1,
                                         .width = x.size()});
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const double want = activation64(kind, x.at(i));
      // Where float64 itself overflows or meets infinity times zero, fp32 may answer with the limit instead.
      if (std::isnan(x.at(i))) {
        EXPECT_TRUE(std::isnan(y.at(i))) << static_cast<int>(kind);
      } else if (std::isfinite(want)) {
        EXPECT_NEAR(y.at(i), want, std::abs(want) * 1e-6 + 1e-35) << static_cast<int>(kind) << " of " << x.at(i);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Activate, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
