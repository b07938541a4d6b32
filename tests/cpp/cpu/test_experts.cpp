// Routing against a plain reference over drawn router outputs, with ties, empty and overfull experts; and the experts' linears
// in every format against the dense kernels, to the bit.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <sstream>

#include "kernel_testing.h"
#include "packed.h"

namespace lamella::cpu::testing {
namespace {

constexpr RouterKind routers[] = {RouterKind::softmax_top_k, RouterKind::softmax_top_k_renormalised,
                                  RouterKind::sigmoid_with_bias, RouterKind::top_1};

/// Rows of integers in memory that a test owns.
using Table = std::vector<std::int32_t>;

class ExpertKernels : public KernelTest {
 protected:
  void SetUp() override {
    tokens_ = draw(0, 2) == 0 ? draw(33, 150) : draw(1, 9);
    experts_ = draw(0, 3) == 0 ? draw(1, 4) : draw(1, 70);
    top_k_ = draw(1, std::min<std::int64_t>(experts_, 9));
    workers_ = static_cast<int>(draw(1, 5));
  }
  [[nodiscard]] std::string drawn() const {
    return (std::ostringstream() << tokens_ << " tokens, " << top_k_ << " of " << experts_ << " experts, " << workers_
                                 << " workers")
        .str();
  }
  [[nodiscard]] ScratchBounds bounds(std::int64_t inputs = 0) const {
    return {
        .max_inputs = inputs, .max_tokens = tokens_, .max_experts = experts_, .max_top_k = top_k_, .workers = workers_};
  }
  bool coin() { return draw(0, 1) == 1; }

  /// Any table of choices: a token's are all different. With `few` all tokens take the same.
  Table any_choices(bool few) {
    Table table, numbers(static_cast<std::size_t>(experts_));
    std::iota(numbers.begin(), numbers.end(), 0);
    for (std::int64_t t = 0; t < tokens_; ++t) {
      if (t == 0 || !few) std::ranges::shuffle(numbers, random_);
      table.insert(table.end(), numbers.begin(), numbers.begin() + top_k_);
    }
    return table;
  }
  /// Where the experts' rows begin.
  Table offsets_of(const Table& choices) const {
    Table offsets(static_cast<std::size_t>(experts_) + 1);
    for (const std::int32_t expert : choices) ++offsets[static_cast<std::size_t>(expert) + 1];
    std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
    return offsets;
  }

  std::int64_t tokens_ = 0, experts_ = 0, top_k_ = 0;
  int workers_ = 1;
};

TEST_P(ExpertKernels, Route) {
  for (const RouterKind kind : routers)
    for (int repeat = 0; repeat < 8; ++repeat) {
      SetUp();
      if (kind == RouterKind::top_1) top_k_ = 1;
      SCOPED_TRACE(drawn() + ", router " + std::to_string(static_cast<int>(kind)));
      const bool by_sigmoid = kind == RouterKind::sigmoid_with_bias;
      // On a grid many are equal, and no two that differ are so by an ulp; far from zero, a softmax keeps few.
      std::vector<float> logits, bias(static_cast<std::size_t>(experts_));
      const float step = by_sigmoid ? 0.25F : coin() ? 0.5F : 20.0F;
      for (std::int64_t i = 0; i < tokens_ * experts_; ++i) logits.push_back(step * static_cast<float>(draw(-8, 8)));
      for (float& each : bias) each = coin() ? 0.5F : 0.0F;
      Table chosen(static_cast<std::size_t>(tokens_ * top_k_), -1);
      Cells weights(DataType::f32, tokens_ * top_k_);
      const Routing routing{.kind = kind,
                            .experts = experts_,
                            .top_k = top_k_,
                            .scale = by_sigmoid ? 2.5F : 1.0F,
                            .bias = by_sigmoid ? bias.data() : nullptr};
      run(kernels().route,
          RouteArgs{.logits = logits.data(),
                    .routing = routing,
                    .chosen = chosen.data(),
                    .weights = weights.floats(),
                    .tokens = tokens_},
          workers_, bounds());
      Values want;
      for (std::int64_t t = 0; t < tokens_; ++t) {
        const auto row = std::span(logits).subspan(static_cast<std::size_t>(t * experts_), bias.size());
        Values scores, keys;
        for (std::size_t e = 0; e < row.size(); ++e) {
          scores.push_back(by_sigmoid ? 1.0 / (1.0 + std::exp(-double{row[e]})) : std::exp(double{row[e]} - 160.0));
          keys.push_back(by_sigmoid ? scores[e] + bias[e] : row[e]);
        }
        Values taken;
        std::vector<bool> used(row.size());
        for (std::int64_t j = 0; j < top_k_; ++j) {
          std::size_t best = row.size();
          for (std::size_t e = 0; e < row.size(); ++e)
            if (!used[e] && (best == row.size() || keys[e] > keys[best])) best = e;
          used[best] = true;
          taken.push_back(scores[best]);
          ASSERT_EQ(chosen[static_cast<std::size_t>(t * top_k_ + j)], best) << "token " << t << ", choice " << j;
        }
        const bool all = kind == RouterKind::softmax_top_k || kind == RouterKind::top_1;
        const Values& summed = all ? scores : taken;
        const double sum = std::accumulate(summed.begin(), summed.end(), 0.0);
        for (const double score : taken) want.push_back(score / sum * routing.scale);
      }
      expect_close(weights, want, 1e-6);
    }
}

TEST_P(ExpertKernels, ARowOfNaNStillChoosesExpertsThatThereAre) {
  SetUp();
  for (const RouterKind kind : routers) {
    if (kind == RouterKind::top_1) top_k_ = 1;
    std::vector<float> logits(static_cast<std::size_t>(tokens_ * experts_), NAN),
        bias(static_cast<std::size_t>(experts_));
    if (coin()) std::ranges::fill(logits, INFINITY);
    Table chosen(static_cast<std::size_t>(tokens_ * top_k_), -1);
    Cells weights(DataType::f32, tokens_ * top_k_);
    run(kernels().route,
        RouteArgs{.logits = logits.data(),
                  .routing = {.kind = kind, .experts = experts_, .top_k = top_k_, .scale = 1.0F, .bias = bias.data()},
                  .chosen = chosen.data(),
                  .weights = weights.floats(),
                  .tokens = tokens_},
        workers_, bounds());
    for (const std::int32_t expert : chosen) {
      EXPECT_GE(expert, 0);
      EXPECT_LT(expert, experts_);
    }
  }
}

TEST_P(ExpertKernels, Dispatch) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    SetUp();
    SCOPED_TRACE(drawn());
    const std::int64_t width = draw_width();
    const Table choices = any_choices(repeat % 4 == 0);
    Cells x(dtype(), normal(tokens_ * width)), rows(dtype(), tokens_ * top_k_ * width);
    Table offsets(static_cast<std::size_t>(experts_) + 1, -1), places(choices.size(), -1);
    run(kernels().dispatch,
        DispatchArgs{.x = x.data(),
                     .chosen = choices.data(),
                     .routing = {.kind = {}, .experts = experts_, .top_k = top_k_, .scale = 1.0F, .bias = nullptr},
                     .to = {.rows = rows.data(), .offsets = offsets.data(), .places = places.data()},
                     .tokens = tokens_,
                     .width = width},
        workers_, bounds(width));
    EXPECT_EQ(offsets, offsets_of(choices));
    Table next = offsets;  // an expert's rows stand in the tokens' order
    for (std::size_t i = 0; i < choices.size(); ++i) {
      ASSERT_EQ(places[i], next[static_cast<std::size_t>(choices[i])]++) << i;
      for (std::int64_t c = 0; c < width; ++c)
        ASSERT_EQ(rows.at(places[i] * width + c), x.at(static_cast<std::int64_t>(i) / top_k_ * width + c)) << i;
    }
    rows.expect_intact();
  }
}

TEST_P(ExpertKernels, Combine) {
  for (int repeat = 0; repeat < 12; ++repeat) {
    SetUp();
    SCOPED_TRACE(drawn());
    const std::int64_t width = draw(0, 3) == 0 ? draw(500, 600) : draw_width();
    if (tokens_ * width < 64) tokens_ = draw_rows(width);
    const bool shared = coin(), gated = shared && coin(), f32 = coin();
    Cells rows(DataType::f32, normal(tokens_ * top_k_ * width)), weights(DataType::f32, normal(tokens_ * top_k_)),
        other(DataType::f32, normal(tokens_ * width)), gate(DataType::f32, normal(tokens_)),
        residual(dtype(), normal(tokens_ * width));
    Table places(static_cast<std::size_t>(tokens_ * top_k_));
    std::iota(places.begin(), places.end(), 0);
    std::ranges::shuffle(places, random_);
    Values want;
    for (std::int64_t t = 0; t < tokens_; ++t)
      for (std::int64_t c = 0; c < width; ++c) {
        double sum = 0.0;
        for (std::int64_t j = t * top_k_; j < (t + 1) * top_k_; ++j)
          sum += weights.at(j) * rows.at(places[static_cast<std::size_t>(j)] * width + c);
        const double factor = gated ? 1.0 / (1.0 + std::exp(-gate.at(t))) : 1.0;
        want.push_back(sum + (shared ? factor * other.at(t * width + c) : 0.0));
      }
    const auto combined = [&](auto* kernel, const void* added, DataType type) {
      Cells y(type, tokens_ * width);
      run(kernel,
          CombineArgs{.rows = rows.floats(),
                      .places = places.data(),
                      .weights = weights.floats(),
                      .shared = shared ? other.floats() : nullptr,
                      .shared_gate = gated ? gate.floats() : nullptr,
                      .residual = added,
                      .y = y.data(),
                      .y_f32 = type == DataType::f32,
                      .tokens = tokens_,
                      .width = width,
                      .top_k = top_k_},
          workers_, bounds());
      return y;
    };
    const DataType type = f32 ? DataType::f32 : dtype();
    expect_close(combined(kernels().combine, nullptr, type), want, bound_of(type));
    if (kernels().combine_residual == nullptr) continue;
    expect_close(combined(kernels().combine_residual, residual.data(), dtype()), add64(want, residual.values()),
                 bound_of(dtype()));
  }
}

/// Experts of one shape, with or without biases.
struct Linears {
  std::vector<Packed> packed;
  std::vector<Cells> biases;
  std::vector<WeightAndBias> list;
};

class ExpertLinears : public ExpertKernels {
 protected:
  Linears linears(const WeightFormat& format, std::int64_t outputs, std::int64_t inputs, bool biased) {
    Linears made;
    made.packed.reserve(static_cast<std::size_t>(experts_));
    made.biases.reserve(static_cast<std::size_t>(experts_));
    for (std::int64_t e = 0; e < experts_; ++e) {
      made.packed.emplace_back(random_matrix(random_, format, outputs, inputs, 0.1));
      made.biases.emplace_back(DataType::f32, normal(biased ? outputs : 0));
      made.list.push_back({made.packed.back().matrix(), biased ? made.biases.back().floats() : nullptr});
    }
    return made;
  }
  /// The dense kernels on one expert's rows.
  void dense(const WeightAndBias& linear, const Cells& x, std::int64_t first, std::int64_t rows, Cells& y) {
    const auto size = static_cast<std::int64_t>(size_of(dtype()));
    const std::int64_t outputs = linear.weight.outputs;
    auto* to = static_cast<std::byte*>(y.data()) + first * outputs * size_of(y.dtype());
    const bool f32 = y.dtype() == DataType::f32;
    Cells products(DataType::f32, rows * outputs);
    run(kernels().linear,
        {.x = static_cast<const std::byte*>(x.data()) + first * linear.weight.inputs * size,
         .weight = linear.weight,
         .y = products.data(),
         .y_f32 = true,
         .tokens = rows},
        1, bounds(linear.weight.inputs));
    for (std::int64_t i = 0; i < rows * outputs; ++i)
      products.floats()[i] += linear.bias == nullptr ? 0.0F : linear.bias[i % outputs];
    if (f32) std::memcpy(to, products.data(), static_cast<std::size_t>(rows * outputs) * sizeof(float));
    else
      for (std::int64_t i = 0; i < rows * outputs; ++i) y.set(first * outputs + i, rounded(y.dtype(), products.at(i)));
  }
};

TEST_P(ExpertLinears, AreTheDenseOnesOfEachExpertsRows) {
  for (const WeightFormat& format : all_formats()) {
    SetUp();
    experts_ = draw(1, 9);
    top_k_ = draw(1, experts_);
    const std::int64_t inputs = draw_inputs() + 2, outputs = draw_outputs();
    const bool biased = coin();
    SCOPED_TRACE(drawn() + ", " + to_string(format) + ", " + std::to_string(inputs) + " to " + std::to_string(outputs));
    const Linears own = linears(format, outputs, inputs, biased);
    const Table offsets = offsets_of(any_choices(coin()));
    Cells x(dtype(), normal(tokens_ * top_k_ * inputs));
    for (const DataType type : {DataType::f32, dtype()}) {
      Cells y(type, tokens_ * top_k_ * outputs), want(type, y.size());
      run(kernels().expert_linear,
          ExpertLinearArgs{.x = x.data(),
                           .experts = {.offsets = offsets.data(), .count = experts_},
                           .linears = own.list.data(),
                           .y = y.data(),
                           .y_f32 = type == DataType::f32,
                           .tokens = tokens_ * top_k_,
                           .sbi_gemm = coin()},
          workers_, bounds(inputs));
      for (std::size_t e = 0; e < own.list.size(); ++e)
        if (offsets[e] < offsets[e + 1]) dense(own.list[e], x, offsets[e], offsets[e + 1] - offsets[e], want);
      EXPECT_EQ(y.bits(), want.bits());
    }
  }
}

TEST_P(ExpertLinears, ExpertUpIsItsLinearsAndTheActivation) {
  if (kernels().expert_up == nullptr || dtype() != DataType::f32) return;  // there the bits are those of the parts
  for (const WeightFormat& format : all_formats()) {
    SetUp();
    experts_ = draw(1, 9);
    top_k_ = draw(1, experts_);
    const std::int64_t inputs = draw_inputs() + 2, outputs = draw_outputs(), rows = tokens_ * top_k_;
    const bool biased = coin(), gated = coin();
    const auto activation = static_cast<Activation>(draw(0, 6));
    SCOPED_TRACE(drawn() + ", " + to_string(format) + ", " + std::to_string(inputs) + " to " + std::to_string(outputs));
    const Linears up = linears(format, outputs, inputs, biased), gate = linears(format, outputs, inputs, biased);
    const Table offsets = offsets_of(any_choices(coin()));
    const Experts experts{.offsets = offsets.data(), .count = experts_};
    Cells x(dtype(), normal(rows * inputs)), y(dtype(), rows * outputs), ups(dtype(), y.size()),
        gates(dtype(), y.size()), want(dtype(), y.size());
    run(kernels().expert_up,
        ExpertUpArgs{.x = x.data(),
                     .experts = experts,
                     .gates = gated ? gate.list.data() : nullptr,
                     .ups = up.list.data(),
                     .activation = activation,
                     .y = y.data(),
                     .tokens = rows},
        workers_, bounds(inputs));
    for (const auto& [linears, to] : {std::pair(&up, &ups), std::pair(&gate, &gates)})
      run(kernels().expert_linear,
          ExpertLinearArgs{.x = x.data(),
                           .experts = experts,
                           .linears = linears->list.data(),
                           .y = to->data(),
                           .y_f32 = false,
                           .tokens = rows},
          1, bounds(inputs));
    run(kernels().activate, {.x = gated ? gates.data() : ups.data(),
                             .up = gated ? ups.data() : nullptr,
                             .y = want.data(),
                             .activation = activation,
                             .f32 = false,
                             .tokens = rows,
                             .width = outputs});
    EXPECT_EQ(y.bits(), want.bits());
  }
}

TEST_P(ExpertLinears, NormRouteIsItsParts) {
  if (kernels().norm_route == nullptr) return;
  for (const WeightFormat& format : all_formats()) {
    SetUp();
    const std::int64_t width = draw_inputs() + 2;
    const bool gated = coin();
    const auto kind = routers[draw(0, 3)];
    if (kind == RouterKind::top_1) top_k_ = 1;
    const NormKind norm = coin() ? NormKind::rms_norm : coin() ? NormKind::layer_norm : NormKind::none;
    SCOPED_TRACE(drawn() + ", " + to_string(format) + ", width " + std::to_string(width));
    const Packed router(random_matrix(random_, format, experts_, width)),
        shared(random_matrix(random_, coin() ? format : weight_only(format), 1, width));
    Cells x(dtype(), normal(tokens_ * width)), norm_weight(DataType::f32, normal(width, 0.3, 1.0)),
        bias(DataType::f32, normal(experts_));
    const Routing routing{.kind = kind, .experts = experts_, .top_k = top_k_, .scale = 1.0F, .bias = bias.floats()};
    const std::int64_t count = tokens_ * top_k_;
    struct Outputs {
      Cells rows, weights, gate;
      Table offsets, places;
    };
    const auto room = [&] {
      return Outputs{Cells(dtype(), count * width), Cells(DataType::f32, count), Cells(DataType::f32, tokens_),
                     Table(static_cast<std::size_t>(experts_) + 1), Table(static_cast<std::size_t>(count))};
    };
    Outputs got = room(), want = room();
    const auto placed = [](Outputs& to) {
      return Placed{.rows = to.rows.data(), .offsets = to.offsets.data(), .places = to.places.data()};
    };
    run(kernels().norm_route,
        NormRouteArgs{.x = x.data(),
                      .norm = norm,
                      .norm_weight = norm_weight.floats(),
                      .norm_bias = nullptr,
                      .eps = 1e-5F,
                      .router = router.matrix(),
                      .shared_router = gated ? shared.matrix() : PackedMatrix{},
                      .shared_gate = gated ? got.gate.floats() : nullptr,
                      .routing = routing,
                      .to = placed(got),
                      .weights = got.weights.floats(),
                      .tokens = tokens_},
        workers_, bounds(width));

    Cells normed(dtype(), x.size()), logits(DataType::f32, tokens_ * experts_);
    run(kernels().norm, {.x = x.data(),
                         .y = normed.data(),
                         .weight = norm_weight.floats(),
                         .bias = nullptr,
                         .kind = norm,
                         .eps = 1e-5F,
                         .tokens = tokens_,
                         .width = width});
    run(kernels().linear,
        {.x = normed.data(), .weight = router.matrix(), .y = logits.data(), .y_f32 = true, .tokens = tokens_}, 1,
        bounds(width));
    if (gated)
      run(kernels().linear,
          {.x = normed.data(), .weight = shared.matrix(), .y = want.gate.data(), .y_f32 = true, .tokens = tokens_}, 1,
          bounds(width));
    Table chosen(static_cast<std::size_t>(count));
    run(kernels().route, RouteArgs{.logits = logits.floats(),
                                   .routing = routing,
                                   .chosen = chosen.data(),
                                   .weights = want.weights.floats(),
                                   .tokens = tokens_});
    run(kernels().dispatch,
        DispatchArgs{.x = normed.data(),
                     .chosen = chosen.data(),
                     .routing = routing,
                     .to = placed(want),
                     .tokens = tokens_,
                     .width = width},
        1, {.max_inputs = width, .max_tokens = tokens_, .max_experts = experts_, .max_top_k = top_k_, .workers = 1});
    EXPECT_EQ(got.offsets, want.offsets);
    EXPECT_EQ(got.places, want.places);
    EXPECT_EQ(got.weights.bits(), want.weights.bits());
    EXPECT_EQ(got.rows.bits(), want.rows.bits());
    if (gated) {
      EXPECT_EQ(got.gate.bits(), want.gate.bits());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ExpertKernels, ::testing::ValuesIn(all_targets()), target_name);
INSTANTIATE_TEST_SUITE_P(Targets, ExpertLinears, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
