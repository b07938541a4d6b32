// A token's row is the same bits whatever the number of tokens and workers: for every kernel, steps of 1 to 70 tokens
// taken from anywhere in a problem of 70, on 1 to 5 workers, against the whole problem on one. (Linears alone:
// test_linear_exactness.cpp.)
#include <algorithm>
#include <cmath>
#include <functional>

#include "kv_problem.h"
#include "packed.h"
#include "seed.h"

namespace lamella::cpu::testing {
namespace {

using lamella::testing::sanitized;

constexpr std::int64_t all_tokens = 70;
/// How many steps are drawn of what is not gone through in steps of every size. Sanitizers, which look for other errors and
/// take ten times as long, draw few of all.
constexpr std::int64_t some_steps = sanitized ? 2 : 10, half_of_them = some_steps / 2,
                       every_size = sanitized ? 6 : all_tokens;

/// Runs tokens [first, first + count) on `workers` and returns their rows, one behind the other.
using StepRunner = std::function<std::vector<std::byte>(std::int64_t first, std::int64_t count, int workers)>;

class Exactness : public KernelTest {
 protected:
  /// Steps in which some row differs from the same row of the whole problem: one of every size, or `draws` of any.
  std::int64_t steps_that_differ(const StepRunner& run_step, std::int64_t draws = all_tokens) {
    const std::vector<std::byte> whole = run_step(0, all_tokens, 1);
    const std::size_t row = whole.size() / all_tokens;
    std::int64_t differ = 0;
    for (std::int64_t step = 1; step <= draws; ++step) {
      const std::int64_t count = draws == all_tokens ? step : draw(1, all_tokens), first = draw(0, all_tokens - count);
      const std::vector<std::byte> part = run_step(first, count, static_cast<int>(draw(1, 5)));
      EXPECT_EQ(part.size(), row * static_cast<std::size_t>(count));
      if (!std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(row) * first)) ++differ;
    }
    return differ;
  }
  /// A pointer `rows` rows of `width` into activations.
  void* at(Cells& cells, std::int64_t rows, std::int64_t width) const {
    return static_cast<std::byte*>(cells.data()) + static_cast<std::size_t>(rows * width) * size_of(dtype());
  }
};

TEST_P(Exactness, RowKernels) {
  const std::int64_t heads = 3, dim = 34, width = heads * dim, rotary = 20;
  Cells x(dtype(), normal(all_tokens * width)), other(dtype(), normal(all_tokens * width)),
      angles(DataType::f32, normal(all_tokens * rotary));
  Cells weight(DataType::f32, normal(width)), bias(DataType::f32, normal(width));
  const auto rows =
      [&](const char* name,
          const std::function<void(void* y, std::int64_t first, std::int64_t count, int workers)>& kernel) {
        SCOPED_TRACE(name);
        EXPECT_EQ(steps_that_differ([&](std::int64_t first, std::int64_t count, int workers) {
                    Cells y(dtype(), count * width);
                    kernel(y.data(), first, count, workers);
                    return y.bits();
                  }),
                  0);
      };
  for (const NormKind kind : {NormKind::layer_norm, NormKind::rms_norm})
    rows("norm", [&](void* y, auto first, auto count, int workers) {
      run(kernels().norm,
          NormArgs{.x = at(x, first, width),
                   .y = y,
                   .weight = weight.floats(),
                   .bias = bias.floats(),
                   .kind = kind,
                   .eps = 1e-5F,
                   .tokens = count,
                   .width = width},
          workers);
    });
  rows("add_bias", [&](void* y, auto first, auto count, int workers) {
    run(kernels().add_bias,
        AddBiasArgs{
            .x = at(x, first, width), .bias = bias.floats(), .y = y, .f32 = false, .tokens = count, .width = width},
        workers);
  });
  rows("rope", [&](void* y, auto first, auto count, int workers) {
    run(kernels().rope,
        RopeArgs{.x = at(x, first, width),
                 .angles = angles.floats() + first * rotary,
                 .y = y,
                 .tokens = count,
                 .heads = heads,
                 .head_dim = dim,
                 .rotary_dim = rotary},
        workers);
  });
  for (int kind = 0; kind <= static_cast<int>(Activation::quick_gelu); ++kind)
    rows("activate", [&](void* y, auto first, auto count, int workers) {
      run(kernels().activate,
          ActivateArgs{.x = at(x, first, width),
                       .up = at(other, first, width),
                       .y = y,
                       .activation = static_cast<Activation>(kind),
                       .f32 = false,
                       .tokens = count,
                       .width = width},
          workers);
    });
  rows("residual", [&](void* y, auto first, auto count, int workers) {
    run(kernels().residual,
        ResidualArgs{.a = at(x, first, width), .b = at(other, first, width), .y = y, .tokens = count, .width = width},
        workers);
  });
}

TEST_P(Exactness, Attention) {
  const std::int64_t kv_heads = 2, heads = kv_heads * draw(1, 3), dim = draw(0, 1) == 0 ? 64 : 41, width = heads * dim;
  for (int round = 0; round < 12; ++round) {
    // Mixed sequences, and a prompt that is chunked across a boundary of attention's parts; then both with a window. The
    // engine's own KV type by steps of every size, then all types by some.
    const DataType kv = round < 4 ? dtype() : kv_types[(round - 4) % 4];
    const std::int64_t window = round % 4 < 2 || round >= 8 ? 0 : draw(1, 300);
    SCOPED_TRACE(::testing::Message() << "window " << window << ", KV in " << to_string(kv));
    KvProblem problem(random_, kv,
                      round % 2 == 0 ? random_contexts(random_, all_tokens) : std::vector<Context>{{220, all_tokens}},
                      kv_heads, dim);
    Cells query(dtype(), normal(all_tokens * width));
    const auto attend = [&](std::int64_t first, std::int64_t count, int workers) {
      const Step step = problem.step(first, count, window);
      Cells by_head(dtype(), count * width), y_by_head(dtype(), count * width), y(dtype(), count * width);
      run(kernels().split_heads,
          {.x = at(query, first, width), .y = by_head.data(), .tokens = count, .heads = heads, .head_dim = dim},
          workers);
      run(kernels().attention,
          AttentionArgs{.query = by_head.data(),
                        .y = y_by_head.data(),
                        .kv = step.kv,
                        .scale = 0.125F,
                        .causal = true,
                        .window = window,
                        .tokens = count,
                        .heads = heads},
          workers, {.max_head_dim = dim});
      run(kernels().merge_heads,
          {.x = y_by_head.data(), .y = y.data(), .tokens = count, .heads = heads, .head_dim = dim}, workers);
      return y.bits();
    };
    EXPECT_EQ(steps_that_differ(attend, round < 4 ? every_size : some_steps), 0);
  }
}

class FusedExactness : public Exactness {};

TEST_P(FusedExactness, Regions) {
  const std::int64_t kv_heads = 2, heads = 6;
  for (std::size_t f = 0; f < all_formats().size(); ++f) {
    // One format by steps of every size, the others by some.
    const std::int64_t draws = f == 0 ? every_size : half_of_them;
    const std::int64_t dim = draw(1, 40) * 2, width = f == 0 ? 1100 : draw_inputs(), outputs = draw_outputs();
    const WeightFormat& format = all_formats()[f];
    SCOPED_TRACE(::testing::Message() << to_string(format) << ": width " << width << ", heads of " << dim << ", "
                                      << outputs << " outputs");
    KvProblem problem(random_, kv_types[f % 4], random_contexts(random_, all_tokens), kv_heads, dim);
    Cells x(dtype(), normal(all_tokens * width)), residual(dtype(), normal(all_tokens * outputs));
    const auto weights = [&](std::int64_t rows) { return Packed(random_matrix(random_, format, rows, width, 0.03)); };
    const Packed wq = weights(heads * dim), wk = weights(kv_heads * dim), wv = weights(kv_heads * dim),
                 up = weights(outputs), gate = weights(outputs);
    Cells angles(DataType::f32, normal(all_tokens * dim)), norm_weight(DataType::f32, normal(width)),
        norm_bias(DataType::f32, normal(width)), bias(DataType::f32, normal(std::max(heads * dim, outputs)));
    const ScratchBounds bounds{.max_inputs = width, .max_head_dim = dim, .max_outputs = outputs};

    const auto norm_qkv = [&](std::int64_t first, std::int64_t count, int workers) {
      const Step step = problem.step(first, count);
      Cells q(dtype(), count * heads * dim);
      run(kernels().norm_qkv,
          NormQkvArgs{.x = at(x, first, width),
                      .norm = NormKind::layer_norm,
                      .norm_weight = norm_weight.floats(),
                      .norm_bias = norm_bias.floats(),
                      .eps = 1e-5F,
                      .query = {wq.matrix(), bias.floats()},
                      .key = {wk.matrix(), bias.floats()},
                      .value = {wv.matrix(), nullptr},
                      .angles = angles.floats() + first * dim,
                      .rotary_dim = dim,
                      .q = q.data(),
                      .kv = step.kv,
                      .tokens = count,
                      .width = width,
                      .heads = heads,
                      .sbi_gemm = draw(0, 1) == 1},
          workers, bounds);
      return q.bits();
    };
    // Every step writes the rows of its tokens into the cache, and the same bits as the whole problem did.
    static_cast<void>(norm_qkv(0, all_tokens, 1));
    const std::vector<std::byte> cache = problem.cache().bits();
    EXPECT_EQ(steps_that_differ(
                  [&](std::int64_t first, std::int64_t count, int workers) {
                    const auto q = norm_qkv(first, count, workers);
                    EXPECT_EQ(problem.cache().bits(), cache);
                    return q;
                  },
                  draws),
              0);
    for (const bool gated : {false, true})
      EXPECT_EQ(steps_that_differ(
                    [&](std::int64_t first, std::int64_t count, int workers) {
                      Cells y(dtype(), count * outputs);
                      run(kernels().norm_mlp_up,
                          NormMlpUpArgs{.x = at(x, first, width),
                                        .norm = NormKind::rms_norm,
                                        .norm_weight = norm_weight.floats(),
                                        .norm_bias = nullptr,
                                        .eps = 1e-5F,
                                        .gate = {gated ? gate.matrix() : PackedMatrix{}, nullptr},
                                        .up = {up.matrix(), bias.floats()},
                                        .activation = Activation::silu,
                                        .y = y.data(),
                                        .tokens = count,
                                        .sbi_gemm = draw(0, 1) == 1},
                          workers, bounds);
                      return y.bits();
                    },
                    draws),
                0);
    EXPECT_EQ(steps_that_differ(
                  [&](std::int64_t first, std::int64_t count, int workers) {
                    Cells y(dtype(), count * outputs);
                    run(kernels().output_residual,
                        OutputResidualArgs{.x = at(x, first, width),
                                           .output = {up.matrix(), bias.floats()},
                                           .residual = at(residual, first, outputs),
                                           .y = y.data(),
                                           .tokens = count,
                                           .sbi_gemm = draw(0, 1) == 1},
                        workers, bounds);
                    return y.bits();
                  },
                  draws),
              0);
  }
}

TEST_P(FusedExactness, LayoutAttention) {
  const std::int64_t kv_heads = 2, heads = kv_heads * draw(1, 3), dim = draw_width() % 130 + 1, width = heads * dim;
  KvProblem problem(random_, draw(0, 1) == 0 ? dtype() : kv_types[draw(0, 3)], random_contexts(random_, all_tokens),
                    kv_heads, dim);
  Cells query(dtype(), normal(all_tokens * width));
  EXPECT_EQ(steps_that_differ([&](std::int64_t first, std::int64_t count, int workers) {
              const Step step = problem.step(first, count);
              Cells y(dtype(), count * width);
              run(kernels().layout_attention,
                  AttentionArgs{.query = at(query, first, width),
                                .y = y.data(),
                                .kv = step.kv,
                                .scale = 0.125F,
                                .causal = true,
                                .window = 0,
                                .tokens = count,
                                .heads = heads},
                  workers, {.max_head_dim = dim});
              return y.bits();
            }),
            0);
}

TEST_P(FusedExactness, EncoderSequencesAloneAndTogether) {  // not causal: a sequence is one step, whoever shares it
  const std::int64_t kv_heads = 2, heads = 4, dim = 64, width = heads * dim;
  const std::vector<Context> contexts = {{0, 5}, {0, 300}, {0, 1}, {0, 37}};
  KvProblem problem(random_, dtype(), contexts, kv_heads, dim);
  Cells query(dtype(), normal(problem.tokens() * width));
  const auto attend = [&](std::int64_t first, std::int64_t count, int workers) {
    const Step step = problem.step(first, count);
    Cells y(dtype(), count * width);
    run(kernels().layout_attention,
        AttentionArgs{.query = at(query, first, width),
                      .y = y.data(),
                      .kv = step.kv,
                      .scale = 0.125F,
                      .causal = false,
                      .window = 0,
                      .tokens = count,
                      .heads = heads},
        workers, {.max_head_dim = dim});
    return y.bits();
  };
  const std::vector<std::byte> whole = attend(0, problem.tokens(), 1);
  std::int64_t first = 0;
  for (const Context& context : contexts) {
    const std::vector<std::byte> alone = attend(first, context.count, static_cast<int>(draw(1, 4)));
    const std::size_t row = whole.size() / static_cast<std::size_t>(problem.tokens());
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), whole.begin() + static_cast<std::ptrdiff_t>(row) * first))
        << context.count << " tokens";
    first += context.count;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Exactness, ::testing::ValuesIn(all_targets()), target_name);
INSTANTIATE_TEST_SUITE_P(Targets, FusedExactness, ::testing::ValuesIn(vector_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
