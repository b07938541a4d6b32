// Deep-Fusion's regions in every format, against the sequences of kernels that they replace (fp32: the same bits) and
// against float64.
#include <algorithm>
#include <cmath>

#include "kv_problem.h"
#include "packed.h"

namespace lamella::cpu::testing {
namespace {

constexpr float eps = 1e-5F;
// The normalised rows and the result round, and errors of the rows add up.
constexpr double fused_bf16_bound = 1e-2, fused_f16_bound = 1.3e-3;
constexpr NormKind norms[] = {NormKind::layer_norm, NormKind::rms_norm, NormKind::none};

class FusedRegions : public KernelTest {
 protected:
  void SetUp() override {
    tokens_ = draw(0, 2) == 0 ? draw(33, 70) : draw(1, 9);
    width_ = draw(0, 9) == 0 ? draw(1000, 1200) : draw_inputs() + 2;
    workers_ = static_cast<int>(draw(1, 5));
    norm_ = norms[draw(0, 2)];
  }
  double bound() const {
    if (dtype() == DataType::bf16) return fused_bf16_bound;
    return dtype() == DataType::f16 ? fused_f16_bound : bound_of(DataType::f32) * 10;
  }
  /// What region 1 and 3 multiply, for float64: from the kernels' own norm, so that int8 codes are the same.
  Values rows64(Cells& x, Cells& weight, Cells& bias, const WeightFormat& format) {
    if (has_int8_inputs(format)) return normed(x, weight, bias).values();
    return norm64(norm_, x.values(), weight.values(), bias.values(), eps, width_);
  }
  [[nodiscard]] ScratchBounds bounds() const { return {.max_inputs = width_}; }
  bool coin() { return draw(0, 1) == 1; }
  /// A vector of floats, or none.
  Values maybe(std::int64_t count) { return coin() ? normal(count) : Values{}; }
  static float* pointer(Cells& cells) { return cells.size() == 0 ? nullptr : cells.floats(); }
  /// The separate kernels' linear with its bias.
  Cells linear(Cells& x, const Packed& weight, Cells& bias) {
    const PackedMatrix matrix = weight.matrix();
    const std::int64_t outputs = matrix.outputs, tokens = x.size() / matrix.inputs;
    Cells y(dtype(), tokens * outputs);
    run(kernels().linear, {.x = x.data(), .weight = matrix, .y = y.data(), .y_f32 = false, .tokens = tokens}, 1,
        bounds());
    if (bias.size() != 0)
      run(kernels().add_bias,
          {.x = y.data(), .bias = bias.floats(), .y = y.data(), .f32 = false, .tokens = tokens, .width = outputs});
    return y;
  }
  /// As expect_close, for want[j] = act(before[j]) * by[j]: where the activation keeps next to nothing, as relu can of few
  /// outputs, errors of what went in count beside that, not beside what is left.
  static void expect_activated(const Cells& got, const Values& want, const Values& before, const Values& by,
                               double bound) {
    double error = 0.0, after = 0.0, size = 0.0;
    for (std::size_t j = 0; j < want.size(); ++j) {
      error += std::pow(got.at(static_cast<std::int64_t>(j)) - want[j], 2);
      after += want[j] * want[j];
      size += std::pow(before[j] * (by.empty() ? 1.0 : by[j]), 2);
    }
    EXPECT_LE(std::sqrt(error), bound * std::sqrt(std::max(after, size / 4)));
    got.expect_intact();
  }
  Cells normed(Cells& x, Cells& weight, Cells& bias) {
    Cells y(dtype(), x.size());
    run(kernels().norm, {.x = x.data(),
                         .y = y.data(),
                         .weight = weight.floats(),
                         .bias = pointer(bias),
                         .kind = norm_,
                         .eps = eps,
                         .tokens = tokens_,
                         .width = width_});
    return y;
  }

  /// What became of a token's row: nothing, other numbers, or something that is no number.
  enum class Row : std::uint8_t { same, finite, not_finite };
  /// Puts zeros, subnormals, outliers, infinity or NaN in some rows.
  std::vector<Row> disturb(Cells& x) {
    std::vector<Row> rows(static_cast<std::size_t>(tokens_), Row::same);
    for (std::int64_t t = 0; t < tokens_; ++t) {
      if (draw(0, 2) != 0) continue;
      const std::int64_t kind = draw(0, 5), one = t * width_ + draw(0, width_ - 1);
      const double subnormal = dtype() == DataType::f16 ? 1e-6 : 1e-40;
      for (std::int64_t i = t * width_; i < (t + 1) * width_ && kind < 2; ++i)
        x.set(i, kind == 0 ? 0.0 : x.at(i) * subnormal);
      if (kind == 2) x.set(one, 2e4);
      if (kind == 3) x.set(one, -2e4);
      if (kind == 4) x.set(one, std::nan(""));
      if (kind == 5) x.set(one, (coin() ? 1.0 : -1.0) * static_cast<double>(INFINITY));
      rows[static_cast<std::size_t>(t)] = kind < 4 ? Row::finite : Row::not_finite;
    }
    return rows;
  }
  /// Undisturbed rows keep their bits, and nothing is left of those that are no numbers where `spoils` says so.
  static void expect_apart(const Cells& before, const Cells& after, const std::vector<Row>& rows, bool spoils) {
    const auto width = before.size() / static_cast<std::int64_t>(rows.size());
    for (std::int64_t i = 0; i < after.size(); ++i) {
      const Row row = rows[static_cast<std::size_t>(i / width)];
      if (row == Row::same) {
        ASSERT_EQ(after.at(i), before.at(i)) << "row " << i / width << ", output " << i % width;
      } else if (row == Row::not_finite && spoils) {
        ASSERT_FALSE(std::isfinite(after.at(i))) << "row " << i / width << ", output " << i % width;
      }
    }
    after.expect_intact();
  }

  std::int64_t tokens_ = 0, width_ = 0;
  int workers_ = 1;
  NormKind norm_ = NormKind::none;
};

TEST_P(FusedRegions, NormQkv) {
  for (const WeightFormat& format : all_formats()) {
    SetUp();
    // At least 16 numbers of K and V: of two, both may cancel to almost nothing.
    const std::int64_t dim = draw_width() % 130 + 2, kv_heads = draw(1, 3) + 16 / (tokens_ * dim),
                       heads = kv_heads * draw(1, 3), rotary = coin() ? draw(1, dim / 2) * 2 : 0;
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << tokens_ << " tokens, width " << width_ << ", "
                                      << heads << " heads on " << kv_heads << " of " << dim << ", " << rotary
                                      << " rotated, " << workers_ << " workers, norm " << static_cast<int>(norm_));
    const DataType kv = coin() ? dtype() : kv_types[draw(0, 3)];
    SCOPED_TRACE(::testing::Message() << "KV in " << to_string(kv));
    KvProblem problem(random_, kv, random_contexts(random_, tokens_), kv_heads, dim);
    Step step = problem.whole();
    const double scale = 1.0 / std::sqrt(static_cast<double>(width_));
    Cells x(dtype(), normal(tokens_ * width_)), norm_weight(DataType::f32, normal(width_, 0.3, 1.0)),
        norm_bias(DataType::f32, maybe(width_));
    // The three may be in different formats.
    const WeightFormat value_format = coin() ? format : weight_only(format);
    const CodedMatrix cq = random_matrix(random_, format, heads * dim, width_, scale),
                      ck = random_matrix(random_, format, kv_heads * dim, width_, scale),
                      cv = random_matrix(random_, value_format, kv_heads * dim, width_, scale);
    const Packed wq(cq), wk(ck, 4), wv(cv, 16);
    Cells bq(DataType::f32, maybe(heads * dim)), bk(DataType::f32, maybe(kv_heads * dim)),
        bv(DataType::f32, maybe(kv_heads * dim));
    Cells angles(DataType::f32, normal(tokens_ * rotary)), q(dtype(), tokens_ * heads * dim);

    Cells before = problem.cache();
    run(kernels().norm_qkv,
        NormQkvArgs{.x = x.data(),
                    .norm = norm_,
                    .norm_weight = norm_weight.floats(),
                    .norm_bias = pointer(norm_bias),
                    .eps = eps,
                    .query = {wq.matrix(), pointer(bq)},
                    .key = {wk.matrix(), pointer(bk)},
                    .value = {wv.matrix(), pointer(bv)},
                    .angles = rotary == 0 ? nullptr : angles.floats(),
                    .rotary_dim = rotary,
                    .q = q.data(),
                    .kv = step.kv,
                    .tokens = tokens_,
                    .width = width_,
                    .heads = heads},
        workers_, {.max_inputs = width_, .max_head_dim = dim});
    q.expect_intact();
    problem.cache().expect_intact();
    const std::vector<std::byte> fused_cache = problem.cache().bits();

    const Values rows = rows64(x, norm_weight, norm_bias, format),
                 value_rows = rows64(x, norm_weight, norm_bias, value_format);
    const auto rotated = [&](const Values& y, std::int64_t n) {
      return rotary == 0 ? y : rope64(y, angles.values(), n, dim, rotary);
    };
    const Values want_k = rotated(linear64(rows, ck, bk.values()), kv_heads),
                 want_v = linear64(value_rows, cv, bv.values());
    expect_close(q, rotated(linear64(rows, cq, bq.values()), heads), bound());
    Values got_k, got_v;
    problem.each_token([&](std::int64_t, std::int64_t sequence, std::int64_t position) {
      for (std::int64_t head = 0; head < kv_heads; ++head) {
        const Values k = problem.row(sequence, position, 0, head), v = problem.row(sequence, position, 1, head);
        got_k.insert(got_k.end(), k.begin(), k.end());
        got_v.insert(got_v.end(), v.begin(), v.end());
      }
    });
    // A code is off by half a step at most, of which the row's largest number has 127.
    const double stored = kv == DataType::i8 ? 0.5 / 127 * std::sqrt(static_cast<double>(dim)) : bound_of(kv);
    EXPECT_LE(relative_error(got_k, want_k), bound() + stored);
    EXPECT_LE(relative_error(got_v, want_v), bound() + stored);
    if (dtype() != DataType::f32) continue;

    problem.cache() = before;
    step = problem.whole();
    Cells xn = normed(x, norm_weight, norm_bias), sq = linear(xn, wq, bq), sk = linear(xn, wk, bk),
          sv = linear(xn, wv, bv);
    if (rotary != 0) {
      run(kernels().rope, {.x = sq.data(),
                           .angles = angles.floats(),
                           .y = sq.data(),
                           .tokens = tokens_,
                           .heads = heads,
                           .head_dim = dim,
                           .rotary_dim = rotary});
      run(kernels().rope, {.x = sk.data(),
                           .angles = angles.floats(),
                           .y = sk.data(),
                           .tokens = tokens_,
                           .heads = kv_heads,
                           .head_dim = dim,
                           .rotary_dim = rotary});
    }
    run(kernels().kv_write, KvWriteArgs{.key = sk.data(), .value = sv.data(), .kv = step.kv, .tokens = tokens_});
    EXPECT_EQ(q.bits(), sq.bits());
    EXPECT_EQ(fused_cache, problem.cache().bits());
  }
}

TEST_P(FusedRegions, NormMlpUp) {
  for (const WeightFormat& format : all_formats()) {
    SetUp();
    const std::int64_t outputs = draw_width();
    if (tokens_ * outputs < 64) tokens_ = draw_rows(outputs);
    const bool gated = coin();
    const auto activation = static_cast<Activation>(draw(0, 6));
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << tokens_ << " tokens, width " << width_ << ", "
                                      << outputs << " outputs, " << workers_ << " workers, gated " << gated
                                      << ", activation " << static_cast<int>(activation) << ", norm "
                                      << static_cast<int>(norm_));
    const double scale = 1.0 / std::sqrt(static_cast<double>(width_));
    Cells x(dtype(), normal(tokens_ * width_)), norm_weight(DataType::f32, normal(width_, 0.3, 1.0)),
        norm_bias(DataType::f32, maybe(width_));
    const WeightFormat gate_format = coin() ? format : weight_only(format);  // the two may differ, and take turns
    const CodedMatrix up_codes = random_matrix(random_, format, outputs, width_, scale),
                      gate_codes = random_matrix(random_, gate_format, outputs, width_, scale);
    const Packed up(up_codes), gate(gate_codes, 4);
    Cells up_bias(DataType::f32, maybe(outputs)), gate_bias(DataType::f32, gated ? maybe(outputs) : Values{}),
        y(dtype(), tokens_ * outputs);
    run(kernels().norm_mlp_up,
        NormMlpUpArgs{.x = x.data(),
                      .norm = norm_,
                      .norm_weight = norm_weight.floats(),
                      .norm_bias = pointer(norm_bias),
                      .eps = eps,
                      .gate = {gated ? gate.matrix() : PackedMatrix{}, pointer(gate_bias)},
                      .up = {up.matrix(), pointer(up_bias)},
                      .activation = activation,
                      .y = y.data(),
                      .tokens = tokens_},
        workers_, bounds());
    const Values want_up = linear64(rows64(x, norm_weight, norm_bias, format), up_codes, up_bias.values());
    const Values before =
        gated ? linear64(rows64(x, norm_weight, norm_bias, gate_format), gate_codes, gate_bias.values()) : want_up;
    Values want = before;
    for (std::size_t j = 0; j < want.size(); ++j)
      want[j] = activation64(activation, want[j]) * (gated ? want_up[j] : 1.0);
    expect_activated(y, want, before, gated ? want_up : Values{}, bound());
    if (dtype() != DataType::f32) continue;

    Cells xn = normed(x, norm_weight, norm_bias), su = linear(xn, up, up_bias), sg = linear(xn, gate, gate_bias);
    Cells sy(dtype(), y.size());
    run(kernels().activate, {.x = gated ? sg.data() : su.data(),
                             .up = gated ? su.data() : nullptr,
                             .y = sy.data(),
                             .activation = activation,
                             .f32 = false,
                             .tokens = tokens_,
                             .width = outputs});
    EXPECT_EQ(y.bits(), sy.bits());
  }
}

TEST_P(FusedRegions, OutputResidual) {
  for (const WeightFormat& format : all_formats()) {
    SetUp();
    const std::int64_t outputs = draw_width();
    if (tokens_ * outputs < 64) tokens_ = draw_rows(outputs);
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << tokens_ << " tokens, " << width_ << " inputs, "
                                      << outputs << " outputs, " << workers_ << " workers");
    const CodedMatrix codes = random_matrix(random_, format, outputs, width_);
    const Packed weight(codes, 4 * draw(0, 4));
    Cells x(dtype(), normal(tokens_ * width_)), bias(DataType::f32, maybe(outputs));
    Cells residual(dtype(), normal(tokens_ * outputs)), y(dtype(), residual.size());
    OutputResidualArgs args{.x = x.data(),
                            .output = {weight.matrix(), pointer(bias)},
                            .residual = residual.data(),
                            .y = y.data(),
                            .tokens = tokens_};
    run(kernels().output_residual, args, workers_, bounds());
    expect_close(y, add64(linear64(x.values(), codes, bias.values()), residual.values()), bound());
    if (dtype() == DataType::f32) {
      Cells sy = linear(x, weight, bias);
      run(kernels().residual,
          {.a = residual.data(), .b = sy.data(), .y = sy.data(), .tokens = tokens_, .width = outputs});
      EXPECT_EQ(y.bits(), sy.bits());
    }
    args.y = residual.data();
    run(kernels().output_residual, args, workers_, bounds());
    EXPECT_EQ(residual.bits(), y.bits());  // in place
  }
}

TEST_P(FusedRegions, RowsOfAnySizeLeaveTheirNeighboursAlone) {
  for (const WeightFormat& format : all_formats()) {
    SetUp();
    const std::int64_t outputs = draw_outputs(), dim = draw_width() % 130 + 2, kv_heads = draw(1, 2),
                       heads = kv_heads * draw(1, 3);
    const bool gated = coin();
    const DataType kv = kv_types[draw(0, 3)];
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": " << tokens_ << " tokens, width " << width_ << ", "
                                      << outputs << " outputs, " << heads << " heads on " << kv_heads << " of " << dim
                                      << ", norm " << static_cast<int>(norm_) << ", gated " << gated << ", KV in "
                                      << to_string(kv));
    const auto weights = [&](std::int64_t rows) {
      return Packed(random_matrix(random_, format, rows, width_, 1.0 / std::sqrt(static_cast<double>(width_))));
    };
    const Packed up = weights(outputs), gate = weights(outputs), wq = weights(heads * dim),
                 wk = weights(kv_heads * dim), wv = weights(kv_heads * dim);
    Cells norm_weight(DataType::f32, normal(width_, 0.3, 1.0));
    Cells residual(dtype(), normal(tokens_ * outputs)), x(dtype(), normal(tokens_ * width_));
    KvProblem problem(random_, kv, random_contexts(random_, tokens_), kv_heads, dim);
    const auto output_residual = [&] {
      Cells y(dtype(), residual.size());
      run(kernels().output_residual,
          OutputResidualArgs{.x = x.data(),
                             .output = {up.matrix(), nullptr},
                             .residual = residual.data(),
                             .y = y.data(),
                             .tokens = tokens_},
          workers_, bounds());
      return y;
    };
    const auto norm_mlp_up = [&] {
      Cells y(dtype(), residual.size());
      run(kernels().norm_mlp_up,
          NormMlpUpArgs{.x = x.data(),
                        .norm = norm_,
                        .norm_weight = norm_weight.floats(),
                        .norm_bias = nullptr,
                        .eps = eps,
                        .gate = {gated ? gate.matrix() : PackedMatrix{}, nullptr},
                        .up = {up.matrix(), nullptr},
                        .activation = gated ? Activation::silu : Activation::none,
                        .y = y.data(),
                        .tokens = tokens_},
          workers_, bounds());
      return y;
    };
    /// Q of all heads, and K and V as the cache holds them, a row a token.
    const auto norm_qkv = [&] {
      const Step step = problem.whole();
      Cells q(dtype(), tokens_ * heads * dim), cached(DataType::f32, tokens_ * 2 * kv_heads * dim);
      run(kernels().norm_qkv,
          NormQkvArgs{.x = x.data(),
                      .norm = norm_,
                      .norm_weight = norm_weight.floats(),
                      .norm_bias = nullptr,
                      .eps = eps,
                      .query = {wq.matrix(), nullptr},
                      .key = {wk.matrix(), nullptr},
                      .value = {wv.matrix(), nullptr},
                      .angles = nullptr,
                      .rotary_dim = 0,
                      .q = q.data(),
                      .kv = step.kv,
                      .tokens = tokens_,
                      .width = width_,
                      .heads = heads},
          workers_, {.max_inputs = width_, .max_head_dim = dim});
      problem.cache().expect_intact();
      std::int64_t at = 0;
      problem.each_token([&](std::int64_t, std::int64_t sequence, std::int64_t position) {
        for (std::int64_t head = 0; head < kv_heads; ++head)
          for (const int k_or_v : {0, 1})
            for (const double value : problem.row(sequence, position, k_or_v, head)) cached.set(at++, value);
      });
      return std::pair{std::move(q), std::move(cached)};
    };
    const Cells up_before = norm_mlp_up(), output_before = output_residual();
    const auto [q_before, kv_before] = norm_qkv();
    const std::vector<Row> rows = disturb(x);
    const Cells output_after = output_residual();
    expect_apart(output_before, output_after, rows, true);
    expect_apart(up_before, norm_mlp_up(), rows, !gated);  // silu of what overflows to -infinity may be zero
    const auto [q_after, kv_after] = norm_qkv();
    expect_apart(q_before, q_after, rows, true);
    expect_apart(kv_before, kv_after, rows, true);
    if (dtype() != DataType::f32) continue;

    Cells none(DataType::f32, Values{}), separate = linear(x, up, none);
    run(kernels().residual,
        {.a = residual.data(), .b = separate.data(), .y = separate.data(), .tokens = tokens_, .width = outputs});
    for (std::int64_t i = 0; i < separate.size(); ++i)  // the rows of zeros, subnormals and outliers among them
      if (rows[static_cast<std::size_t>(i / outputs)] != Row::not_finite) {
        ASSERT_EQ(output_after.at(i), separate.at(i)) << i;
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, FusedRegions, ::testing::ValuesIn(vector_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
