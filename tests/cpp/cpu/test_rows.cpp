#include <cmath>

#include "kernel_testing.h"
#include "packed.h"

namespace lamella::cpu::testing {
namespace {

class Rows : public KernelTest {
 protected:
  void SetUp() override {
    width_ = draw_width();
    tokens_ = draw_rows(width_);
    workers_ = static_cast<int>(draw(1, 5));
  }
  std::vector<std::int32_t> ids(std::int64_t count, std::int64_t below) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
    for (auto& id : ids) id = static_cast<std::int32_t>(draw(0, below - 1));
    return ids;
  }
  WeightFormat draw_format() {
    return all_formats()[static_cast<std::size_t>(draw(0, static_cast<std::int64_t>(all_formats().size()) - 1))];
  }
  void add_row(Values& y, std::int64_t to, const Cells& table, std::int64_t row) const {
    for (std::int64_t i = 0; i < width_; ++i)
      y[static_cast<std::size_t>(to * width_ + i)] += table.at(row * width_ + i);
  }

  std::int64_t tokens_ = 0, width_ = 0;
  int workers_ = 1;
};

TEST_P(Rows, Embed) {
  for (const WeightFormat& format : all_formats()) {
    SetUp();
    const bool positions = draw(0, 1) == 1, types = draw(0, 1) == 1;
    const std::int32_t offset = static_cast<std::int32_t>(draw(0, 2));
    SCOPED_TRACE(::testing::Message() << to_string(format) << ", " << tokens_ << " x " << width_ << ", positions "
                                      << positions << ", types " << types << ", " << workers_ << " workers");
    const CodedMatrix tokens = draw(0, 1) == 1 ? extreme_matrix(random_, format, 50, width_)
                                               : random_matrix(random_, format, 50, width_),
                      position_rows = random_matrix(random_, draw_format(), 32, width_),
                      type_rows = random_matrix(random_, draw_format(), 2, width_);
    const Packed token_table(tokens, 4 * draw(0, 4)), position_table(position_rows), type_table(type_rows, 4);
    const auto token_ids = ids(tokens_, 50), position_ids = ids(tokens_, 30), type_ids = ids(tokens_, 2);
    Cells y(dtype(), tokens_ * width_);
    run(kernels().embed,
        EmbedArgs{.token_ids = token_ids.data(),
                  .positions = position_ids.data(),
                  .token_types = type_ids.data(),
                  .token_table = token_table.matrix(),
                  .position_table = positions ? position_table.matrix() : PackedMatrix{},
                  .type_table = types ? type_table.matrix() : PackedMatrix{},
                  .y = y.data(),
                  .tokens = tokens_,
                  .width = width_,
                  .position_offset = offset},
        workers_, {.max_inputs = width_});
    // Token, type and position in this order, each sum rounded to fp32: nothing is left open, to the bit.
    Values want;
    for (std::size_t t = 0; t < token_ids.size(); ++t)
      for (std::int64_t i = 0; i < width_; ++i) {
        float sum = tokens.value(token_ids[t], i);
        if (types) sum += type_rows.value(type_ids[t], i);
        if (positions) sum += position_rows.value(position_ids[t] + offset, i);
        want.push_back(sum);
      }
    expect_within(y, want, Values(want.size(), 0.0));
  }
}

TEST_P(Rows, AddBiasAndResidual) {
  for (int i = 0; i < 20; ++i) {
    SetUp();
    const bool f32 = draw(0, 1) == 1;
    const DataType type = f32 ? DataType::f32 : dtype();
    Cells x(type, normal(tokens_ * width_)), bias(DataType::f32, normal(width_)), y(type, tokens_ * width_);
    Values repeated(static_cast<std::size_t>(tokens_ * width_));
    for (std::int64_t t = 0; t < tokens_; ++t) add_row(repeated, t, bias, 0);
    run(kernels().add_bias,
        AddBiasArgs{
            .x = x.data(), .bias = bias.floats(), .y = y.data(), .f32 = f32, .tokens = tokens_, .width = width_},
        workers_);
    expect_close(y, add64(x.values(), repeated), bound_of(type));
    Cells a(dtype(), normal(tokens_ * width_)), b(dtype(), normal(tokens_ * width_)), sum(dtype(), tokens_ * width_);
    run(kernels().residual,
        ResidualArgs{.a = a.data(), .b = b.data(), .y = sum.data(), .tokens = tokens_, .width = width_}, workers_);
    expect_close(sum, add64(a.values(), b.values()), bound_of(dtype()));
    run(kernels().residual,
        ResidualArgs{.a = a.data(), .b = b.data(), .y = a.data(), .tokens = tokens_, .width = width_}, workers_);
    EXPECT_EQ(a.bits(), sum.bits());  // in place
  }
}

TEST_P(Rows, ResultsRoundToNearestEven) {
  if (dtype() == DataType::f32) return;
  // From 1 on bf16 has steps of 2^-7 and fp16 of 2^-10: addends of a quarter step, so that ties and both their sides
  // occur; one sum overflows, one is not a number.
  const double step_from_1 = dtype() == DataType::bf16 ? 0x1p-7 : 0x1p-10;
  Values addends;
  for (int k = -70; k < 70; ++k) addends.push_back(k * step_from_1 / 4.0);
  addends.insert(addends.end(), {NAN, INFINITY, -1.0});
  Cells ones(dtype(), Values(addends.size(), 1.0)), b(dtype(), addends), y(dtype(), ones.size());
  run(kernels().residual, ResidualArgs{.a = ones.data(), .b = b.data(), .y = y.data(), .tokens = 1, .width = y.size()});
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const double sum = 1.0 + b.at(i), step = std::abs(sum) < 1.0 ? step_from_1 / 2 : step_from_1;
    const double want = std::isfinite(sum) ? std::nearbyint(sum / step) * step : sum;
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(y.at(i)));
    } else {
      EXPECT_EQ(y.at(i), want) << sum;
    }
  }
  // The largest numbers, and what lies beyond them. (Subnormals: 2^-14 less steps of 2^-24 for fp16.)
  const double largest = dtype() == DataType::bf16 ? 0x1.fep127 : 65504.0,
               tiny = dtype() == DataType::bf16 ? 0x1p-126 : 0x1p-14;
  Cells a2(dtype(), Values{largest, largest, -largest, tiny, tiny * 1.5}),
      b2(dtype(), Values{largest, 0.0, -largest, -tiny / 4, -tiny}), y2(dtype(), 5);
  run(kernels().residual, ResidualArgs{.a = a2.data(), .b = b2.data(), .y = y2.data(), .tokens = 1, .width = 5});
  EXPECT_EQ(y2.values(), (Values{INFINITY, largest, -INFINITY, tiny * 0.75, tiny * 0.5}));
}

TEST_P(Rows, GatherRows) {
  for (int i = 0; i < 20; ++i) {
    SetUp();
    const std::int64_t count = draw(1, 9);
    const bool y_f32 = draw(0, 1) == 1;
    Cells x(dtype(), normal(tokens_ * width_)), y(y_f32 ? DataType::f32 : dtype(), count * width_);
    const auto rows = ids(count, tokens_);
    run(kernels().gather_rows,
        GatherRowsArgs{
            .x = x.data(), .rows = rows.data(), .y = y.data(), .y_f32 = y_f32, .row_count = count, .width = width_},
        workers_);
    Values want(static_cast<std::size_t>(count * width_));
    for (std::int64_t r = 0; r < count; ++r) add_row(want, r, x, rows[static_cast<std::size_t>(r)]);
    expect_close(y, want, 0.0);
  }
}

TEST_P(Rows, MeanPool) {
  for (int i = 0; i < 20; ++i) {
    SetUp();
    std::vector<SequenceSpan> spans;
    for (std::int64_t t = 0; t < tokens_;) {
      const std::int64_t count = draw(1, tokens_ - t);
      spans.push_back({static_cast<std::int32_t>(t), static_cast<std::int32_t>(count)});
      t += count;
    }
    // Around 1: means around 0 would be all cancellation.
    Cells x(dtype(), normal(tokens_ * width_, 1.0, 1.0)),
        y(DataType::f32, static_cast<std::int64_t>(spans.size()) * width_);
    run(kernels().mean_pool,
        MeanPoolArgs{.x = x.data(),
                     .sequences = spans.data(),
                     .y = y.floats(),
                     .sequence_count = static_cast<std::int64_t>(spans.size()),
                     .width = width_},
        workers_);
    Values want(static_cast<std::size_t>(y.size()));
    for (std::size_t s = 0; s < spans.size(); ++s)
      for (std::int64_t t = 0; t < spans[s].count; ++t)
        for (std::int64_t j = 0; j < width_; ++j)
          want[s * static_cast<std::size_t>(width_) + static_cast<std::size_t>(j)] +=
              x.at((spans[s].first + t) * width_ + j) / spans[s].count;
    expect_close(y, want, bound_of(DataType::f32));
  }
}

TEST_P(Rows, HeadLayoutsAreInverse) {
  for (int i = 0; i < 20; ++i) {
    SetUp();
    const std::int64_t heads = draw(1, 5);
    Cells x(dtype(), normal(tokens_ * heads * width_)), by_head(dtype(), x.size()), back(dtype(), x.size());
    run(kernels().split_heads,
        {.x = x.data(), .y = by_head.data(), .tokens = tokens_, .heads = heads, .head_dim = width_}, workers_);
    for (std::int64_t t = 0; t < tokens_; ++t)
      for (std::int64_t head = 0; head < heads; ++head)
        EXPECT_EQ(by_head.at((head * tokens_ + t) * width_), x.at((t * heads + head) * width_));
    run(kernels().merge_heads,
        {.x = by_head.data(), .y = back.data(), .tokens = tokens_, .heads = heads, .head_dim = width_}, workers_);
    EXPECT_EQ(back.bits(), x.bits());
    by_head.expect_intact();
    back.expect_intact();
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Rows, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
