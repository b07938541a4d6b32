#include <cmath>

#include "kv_problem.h"

namespace lamella::cpu::testing {
namespace {

class Attention : public KernelTest {
 protected:
  void compare(const std::vector<Context>& contexts, std::int64_t kv_heads, std::int64_t group, std::int64_t dim,
               Visible visible, int workers) {
    const std::int64_t heads = kv_heads * group;
    KvProblem problem(random_, dtype(), contexts, kv_heads, dim);
    Step step = problem.step(0, problem.tokens(), visible.window);
    SCOPED_TRACE(::testing::Message() << step.tokens << " tokens of " << contexts.size() << " sequences, first "
                                      << contexts[0].past << " + " << contexts[0].count << ", " << heads << " heads on "
                                      << kv_heads << ", dim " << dim << ", causal " << visible.causal << ", window "
                                      << visible.window << ", " << workers << " workers");
    const float scale = 1.0F / std::sqrt(static_cast<float>(dim));
    Cells by_token(dtype(), normal(step.tokens * heads * dim)), by_head(dtype(), by_token.size());
    Cells y_by_head(dtype(), by_token.size()), y(dtype(), by_token.size()), fused_y(dtype(), by_token.size());
    const ScratchBounds bounds{.max_head_dim = dim};
    AttentionArgs args{.query = by_head.data(),
                       .y = y_by_head.data(),
                       .kv = step.kv,
                       .scale = scale,
                       .causal = visible.causal,
                       .window = visible.window,
                       .tokens = step.tokens,
                       .heads = heads};
    run(kernels().split_heads,
        {.x = by_token.data(), .y = by_head.data(), .tokens = step.tokens, .heads = heads, .head_dim = dim}, workers);
    run(kernels().attention, args, workers, bounds);
    run(kernels().merge_heads,
        {.x = y_by_head.data(), .y = y.data(), .tokens = step.tokens, .heads = heads, .head_dim = dim}, workers);
    const Values want = attention64(problem, by_token.values(), heads, kv_heads, dim, scale, visible);
    by_head.expect_intact();
    y_by_head.expect_intact();
    expect_close(y, want, bound_of(dtype()));
    if (kernels().layout_attention == nullptr) return;
    args.query = by_token.data();
    args.y = fused_y.data();
    run(kernels().layout_attention, args, workers, bounds);
    fused_y.expect_intact();
    EXPECT_EQ(fused_y.bits(), y.bits());  // only strides differ, in both dtypes
  }
};

TEST_P(Attention, OneToken) {
  for (const std::int64_t past : {0, 1, 15, 16, 17, 254, 255, 256, 257, 511, 512, 700})
    compare({{past, 1}}, draw(1, 3), draw(1, 5), draw_width(), {.causal = draw(0, 1) == 1},
            static_cast<int>(draw(1, 5)));
}

TEST_P(Attention, RaggedBatches) {
  for (int i = 0; i < 8; ++i)
    compare(random_contexts(random_, draw(1, 40)), draw(1, 3), draw(1, 5), draw_width() % 130 + 1,
            {.causal = draw(0, 1) == 1}, static_cast<int>(draw(1, 5)));
}

TEST_P(Attention, Windows) {
  // Around blocks and parts, and a window that begins in every place of them as the tokens of a prompt go on.
  for (const std::int64_t window : {1, 2, 15, 16, 17, 255, 256, 257, 300})
    compare({{draw(0, 700), draw(1, 40)}, {draw(0, 300), 1}, {0, draw(1, 20)}}, draw(1, 2), draw(1, 5),
            draw_width() % 130 + 1, {.window = window}, static_cast<int>(draw(1, 5)));
  compare({{240, 40}}, 1, 4, 64, {.window = 20}, 1);
  for (int i = 0; i < 6; ++i)
    compare(random_contexts(random_, draw(1, 40)), draw(1, 3), draw(1, 5), draw_width() % 130 + 1,
            {.window = draw(1, 400)}, static_cast<int>(draw(1, 5)));
}

TEST_P(Attention, PromptsAcrossPartBoundaries) {
  compare({{250, 12}, {0, 30}, {510, 5}}, 2, 1, 64, {}, 2);
  compare({{250, 12}, {0, 30}}, 2, 3, 64, {}, 3);
  compare({{0, 300}}, 1, 1, 32, {.causal = false}, 2);
}

TEST_P(
    Attention,
    ScoresFarApart) {  // exponentials would overflow without the largest score taken off, in one part or between them
  KvProblem problem(random_, dtype(), {{600, 1}}, 1, 16);
  for (std::int64_t d = 0; d < 16; ++d) {
    problem.cache().set(problem.index(0, 300, 0, 0) + d, 50.0);
    problem.cache().set(problem.index(0, 20, 0, 0) + d, -50.0);
  }
  Step step = problem.whole();
  for (const double sign : {1.0, -1.0}) {
    Cells query(dtype(), Values(16, sign)), y(dtype(), 16);
    run(kernels().attention,
        AttentionArgs{.query = query.data(),
                      .y = y.data(),
                      .kv = step.kv,
                      .scale = 1.0F,
                      .causal = true,
                      .window = 0,
                      .tokens = 1,
                      .heads = 1},
        1, {.max_head_dim = 16});
    expect_close(y, attention64(problem, query.values(), 1, 1, 16, 1.0, {}), bound_of(dtype()));
  }
}

TEST_P(Attention, KvWritePutsEveryRowInItsSlot) {
  for (int i = 0; i < 6; ++i) {
    const std::int64_t kv_heads = draw(1, 3), dim = draw_width();
    KvProblem problem(random_, dtype(), random_contexts(random_, draw(1, 40)), kv_heads, dim);
    Step step = problem.whole();
    Cells key(dtype(), normal(step.tokens * kv_heads * dim)), value(dtype(), normal(step.tokens * kv_heads * dim));
    Cells want = problem.cache();
    problem.each_token([&](std::int64_t token, std::int64_t sequence, std::int64_t position) {
      for (std::int64_t head = 0; head < kv_heads; ++head)
        for (std::int64_t d = 0; d < dim; ++d) {
          want.set(problem.index(sequence, position, 0, head) + d, key.at((token * kv_heads + head) * dim + d));
          want.set(problem.index(sequence, position, 1, head) + d, value.at((token * kv_heads + head) * dim + d));
        }
    });
    run(kernels().kv_write, KvWriteArgs{.key = key.data(), .value = value.data(), .kv = step.kv, .tokens = step.tokens},
        static_cast<int>(draw(1, 5)));
    EXPECT_EQ(problem.cache().bits(), want.bits());  // and no other slot is touched
    problem.cache().expect_intact();
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Attention, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
