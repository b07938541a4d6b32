#include <cmath>

#include "float64.h"
#include "kernel_testing.h"
#include "model/rope.h"

namespace lamella::cpu::testing {
namespace {

class Rope : public KernelTest {};

TEST_P(Rope, RandomShapes) {
  for (int i = 0; i < 40; ++i) {
    const std::int64_t tokens = draw(1, 9), heads = draw(1, 5), dim = draw_width() + 1, rotary = draw(1, dim / 2) * 2;
    SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << heads << " heads of " << dim << ", " << rotary
                                      << " rotated");
    Cells x(dtype(), normal(tokens * heads * dim)), y(dtype(), x.size()),
        angles(DataType::f32, normal(tokens * rotary));
    RopeArgs args{.x = x.data(),
                  .angles = angles.floats(),
                  .y = y.data(),
                  .tokens = tokens,
                  .heads = heads,
                  .head_dim = dim,
                  .rotary_dim = rotary};
    const int workers = static_cast<int>(draw(1, 5));
    run(kernels().rope, args, workers);
    expect_close(y, rope64(x.values(), angles.values(), heads, dim, rotary), bound_of(dtype()));
    args.y = x.data();
    run(kernels().rope, args, workers);
    EXPECT_EQ(x.bits(), y.bits());  // in place
    x.expect_intact();
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Rope, ::testing::ValuesIn(all_targets()), target_name);

TEST(RopeTable, AnglesArePositionTimesFrequency) {
  RopeSpec rope;
  rope.rotary_dim = 10;
  const std::vector<std::int32_t> positions = {0, 1, 7, 4095}, lengths = {1, 2, 8, 4096};
  Cells angles(DataType::f32, 4 * 10);
  run(&rope_table,
      RopeTableArgs{.positions = positions.data(),
                    .rope_lengths = lengths.data(),
                    .rope = &rope,
                    .angles = angles.floats(),
                    .tokens = 4},
      3);
  for (std::int64_t t = 0; t < 4; ++t)
    for (std::int64_t i = 0; i < 5; ++i) {
      const float frequency = static_cast<float>(1.0 / std::pow(10000.0, static_cast<double>(i) / 5.0));
      const double angle = static_cast<float>(positions[static_cast<std::size_t>(t)]) * frequency;
      EXPECT_NEAR(angles.at(t * 10 + i), std::cos(angle),
                  5e-4);  // a frequency off by one ulp turns position 4095 by 2.4e-4
      EXPECT_NEAR(angles.at(t * 10 + 5 + i), std::sin(angle), 5e-4);
    }
  angles.expect_intact();
}

TEST(RopeTable, FrequenciesFollowEachSequencesLength) {
  RopeSpec rope;
  rope.rotary_dim = 8;
  rope.scaling = RopeScaling::dynamic_ntk;
  rope.factor = 4.0;
  rope.original_max_positions = 64;
  const std::vector<std::int32_t> positions = {50, 50, 50}, lengths = {60, 200, 60};
  Cells angles(DataType::f32, 3 * 8);
  run(&rope_table,
      RopeTableArgs{.positions = positions.data(),
                    .rope_lengths = lengths.data(),
                    .rope = &rope,
                    .angles = angles.floats(),
                    .tokens = 3},
      1);
  for (std::int64_t t = 0; t < 3; ++t) {
    const RopeFrequencies frequencies = rope_frequencies(rope, lengths[static_cast<std::size_t>(t)]);
    for (std::int64_t i = 0; i < 4; ++i)
      EXPECT_EQ(static_cast<float>(angles.at(t * 8 + i)),
                std::cos(50.0F * frequencies.inverse[static_cast<std::size_t>(i)]) * frequencies.attention_factor);
  }
  EXPECT_NE(angles.at(3), angles.at(8 + 3));
}

}  // namespace
}  // namespace lamella::cpu::testing
