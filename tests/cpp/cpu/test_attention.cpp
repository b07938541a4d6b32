#include <algorithm>
#include <cmath>
#include <limits>

#include "kv_problem.h"

namespace lamella::cpu::testing {
namespace {

class Attention : public KernelTest {
 protected:
  /// Half of the time the engine's own type.
  DataType any_kv_type() { return draw(0, 1) == 0 ? dtype() : kv_types[draw(0, 3)]; }
  /// Queries and weights meet int8 codes as whole numbers of 16 bits: 1e-5 to 1e-4 of results that hardly cancel.
  double bound(DataType kv) const { return bound_of(dtype()) + (kv == DataType::i8 ? 5e-4 : 0.0); }

  /// Rows of `dim`, some of them zero, subnormal, too small for a scale, huge, or with one large number or many.
  Values hostile_rows(std::int64_t count, std::int64_t dim) {
    const bool narrow = dtype() == DataType::f16;
    Values all = normal(count * dim);
    for (std::int64_t r = 0; r < count; ++r) {
      double* row = all.data() + r * dim;
      const auto times = [&](double factor) { std::for_each_n(row, dim, [=](double& v) { v *= factor; }); };
      switch (draw(0, 9)) {
        case 0: times(0.0); break;
        case 1: times(-0.0); break;
        case 2: times(narrow ? 1e-6 : 1e-40); break;
        case 3: times(narrow ? 1e-7 : 1e-33); break;  // below 2^-100 where there is room
        case 4: times(1e3); break;
        case 5: row[draw(0, dim - 1)] = draw(0, 1) == 0 ? 1e4 : -1e4; break;
        case 6: std::for_each_n(row, dim, [&](double& v) { v *= draw(0, 5) == 0 ? 300.0 : 1.0; }); break;
        case 7: std::for_each_n(row, dim, [&](double& v) { v *= static_cast<double>(draw(0, 1)); }); break;
        default: break;
      }
    }
    return all;
  }

  /// With the contexts as often as makes 64 results: weights rounded to bf16 leave one that cancels far from float64.
  void compare(const std::vector<Context>& some, std::int64_t kv_heads, std::int64_t group, std::int64_t dim,
               Visible visible, int workers) {
    const std::int64_t heads = kv_heads * group;
    const DataType kv = any_kv_type();
    std::int64_t tokens = 0;
    for (const Context& context : some) tokens += context.count;
    std::vector<Context> contexts;
    for (std::int64_t results = 0; results < 64; results += tokens * heads * dim)
      contexts.insert(contexts.end(), some.begin(), some.end());
    KvProblem problem(random_, kv, contexts, kv_heads, dim);
    Step step = problem.step(0, problem.tokens(), visible.window);
    SCOPED_TRACE(::testing::Message() << step.tokens << " tokens of " << contexts.size() << " sequences, first "
                                      << contexts[0].past << " + " << contexts[0].count << ", " << heads << " heads on "
                                      << kv_heads << ", dim " << dim << ", causal " << visible.causal << ", window "
                                      << visible.window << ", " << workers << " workers, KV in " << to_string(kv));
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
    expect_close(y, want, bound(kv));
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

TEST_P(Attention, ContextsSplitOverWorkersGiveTheSameBits) {
  for (int i = 0; i < 12; ++i) {
    std::vector<Context> contexts;
    for (std::int64_t n = draw(1, 4); n > 0; --n) contexts.push_back({draw(0, i % 2 == 0 ? 3000 : 300), 1});
    const std::int64_t kv_heads = draw(1, 3), group = draw(0, 3) == 0 ? draw(20, 30) : draw(1, 5),
                       dim = draw_width() % 90 + 1, heads = kv_heads * group;
    const DataType kv = any_kv_type();
    KvProblem problem(random_, kv, contexts, kv_heads, dim);
    const std::int64_t window = draw(0, 2) == 0 ? draw(1, 900) : 0;
    Step step = problem.step(0, problem.tokens(), window);
    Cells query(dtype(), normal(step.tokens * heads * dim)), whole(dtype(), query.size()), split(dtype(), query.size());
    AttentionArgs args{.query = query.data(),
                       .y = whole.data(),
                       .kv = step.kv,
                       .scale = 0.1F,
                       .causal = true,
                       .window = window,
                       .tokens = step.tokens,
                       .heads = heads};
    run(kernels().attention, args, 1, {.max_head_dim = dim});
    args.split = kernels().layout_attention != nullptr;  // the oracle has nothing to split
    args.y = split.data();
    const int workers = static_cast<int>(draw(1, 9));
    SCOPED_TRACE(::testing::Message() << contexts.size() << " contexts, first of " << contexts[0].past + 1 << ", "
                                      << heads << " heads on " << kv_heads << ", dim " << dim << ", window " << window
                                      << ", " << workers << " workers, KV in " << to_string(kv));
    run(kernels().attention, args, workers,
        {.max_head_dim = dim,
         .max_context = step.kv.blocks_per_sequence * kv_block_tokens,
         .split_group = group,
         .workers = workers});
    split.expect_intact();
    EXPECT_EQ(split.bits(), whole.bits());
  }
}

TEST(SplitContexts, WhereHeadsDoNotDivideAndContextsAreLong) {
  AttentionArgs args{};
  args.tokens = args.kv.sequence_count = 2;
  args.kv.kv_heads = 8;
  EXPECT_FALSE(split_contexts(args, 8192, 4));  // two heads each
  EXPECT_TRUE(split_contexts(args, 8192, 3));
  EXPECT_TRUE(split_contexts(args, 8192, 16));
  EXPECT_FALSE(split_contexts(args, 512, 3));  // of one part each
  args.window = 100;
  EXPECT_FALSE(split_contexts(args, 8192, 3));
  args.window = 1000;
  EXPECT_TRUE(split_contexts(args, 8192, 3));
  args.tokens = 3;  // a prompt among them
  EXPECT_FALSE(split_contexts(args, 8192, 3));
}

TEST_P(
    Attention,
    ScoresFarApart) {  // exponentials would overflow without the largest score taken off, in one part or between them
  const DataType kv = any_kv_type();
  KvProblem problem(random_, kv, {{600, 1}}, 1, 16);
  problem.set(problem.cache(), 0, 300, 0, 0, Values(16, 50.0));
  problem.set(problem.cache(), 0, 20, 0, 0, Values(16, -50.0));
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
    expect_close(y, attention64(problem, query.values(), 1, 1, 16, 1.0, {}), bound(kv));
  }
}

TEST_P(Attention, KvWritePutsEveryRowInItsSlot) {
  for (int i = 0; i < 16; ++i) {
    const std::int64_t kv_heads = draw(1, 3), dim = draw_width();
    KvProblem problem(random_, kv_types[i % 4], random_contexts(random_, draw(1, 40)), kv_heads, dim);
    Step step = problem.whole();
    const auto rows = [&] {
      return i < 8 ? normal(step.tokens * kv_heads * dim) : hostile_rows(step.tokens * kv_heads, dim);
    };
    Cells key(dtype(), rows()), value(dtype(), rows());
    Cells want = problem.cache();
    problem.each_token([&](std::int64_t token, std::int64_t sequence, std::int64_t position) {
      for (std::int64_t head = 0; head < kv_heads; ++head) {
        const auto row = [&](const Cells& cells) {
          Values values;
          for (std::int64_t d = 0; d < dim; ++d) values.push_back(cells.at((token * kv_heads + head) * dim + d));
          return values;
        };
        problem.set(want, sequence, position, 0, head, row(key));
        problem.set(want, sequence, position, 1, head, row(value));
      }
    });
    run(kernels().kv_write, KvWriteArgs{.key = key.data(), .value = value.data(), .kv = step.kv, .tokens = step.tokens},
        static_cast<int>(draw(1, 5)));
    EXPECT_EQ(problem.cache().bits(), want.bits());  // and no other slot is touched
    problem.cache().expect_intact();
  }
}

TEST_P(Attention, HostileRowsGiveMixturesOfTheirValues) {
  // Large scores leave little of a comparison of numbers, but the weights still add up to one: every result lies between
  // the least and the largest value that its query sees, for every size of keys, values and queries.
  for (int i = 0; i < 12; ++i) {
    const DataType kv = kv_types[i % 4];
    const std::int64_t kv_heads = draw(1, 2), heads = kv_heads * draw(1, 4), dim = draw_width() % 130 + 1;
    KvProblem problem(random_, kv, random_contexts(random_, draw(1, 40)), kv_heads, dim);
    for (std::size_t s = 0; s < problem.contexts().size(); ++s)
      for (std::int64_t p = 0; p < problem.contexts()[s].past + problem.contexts()[s].count; ++p)
        for (std::int64_t head = 0; head < kv_heads; ++head)
          for (const int k_or_v : {0, 1})
            problem.set(problem.cache(), static_cast<std::int64_t>(s), p, k_or_v, head, hostile_rows(1, dim));
    const Step step = problem.whole();
    SCOPED_TRACE(::testing::Message() << step.tokens << " tokens, " << heads << " heads on " << kv_heads << " of "
                                      << dim << ", KV in " << to_string(kv));
    Cells query(dtype(), hostile_rows(heads * step.tokens, dim)), y(dtype(), query.size());  // by head
    run(kernels().attention,
        AttentionArgs{.query = query.data(),
                      .y = y.data(),
                      .kv = step.kv,
                      .scale = 1.0F / std::sqrt(static_cast<float>(dim)),
                      .causal = true,
                      .window = 0,
                      .tokens = step.tokens,
                      .heads = heads},
        static_cast<int>(draw(1, 5)), {.max_head_dim = dim});
    y.expect_intact();
    problem.each_token([&](std::int64_t token, std::int64_t sequence, std::int64_t position) {
      for (std::int64_t head = 0; head < heads; ++head) {
        const Values rows = problem.rows(sequence, position + 1, 1, head / (heads / kv_heads));
        double largest_of_all = 0.0;
        for (const double v : rows) largest_of_all = std::max(largest_of_all, std::abs(v));
        for (std::int64_t d = 0; d < dim; ++d) {
          double least = rows[static_cast<std::size_t>(d)], most = least;
          for (auto at = static_cast<std::size_t>(d); at < rows.size(); at += static_cast<std::size_t>(dim)) {
            least = std::min(least, rows[at]);
            most = std::max(most, rows[at]);
          }
          const double step_near_zero = dtype() == DataType::f16 ? 0x1p-24 : 0x1p-126;
          // Weights are rounded, to a part of the largest product of weight and scale where values are int8.
          const double slack = (2 * bound(kv) + 1e-4) * largest_of_all + step_near_zero,
                       got = y.at((head * step.tokens + token) * dim + d);
          EXPECT_GE(got, least - slack) << token << ", " << head << ", " << d;
          EXPECT_LE(got, most + slack) << token << ", " << head << ", " << d;
        }
      }
    });
  }
}

TEST_P(Attention, EqualScoresGiveTheMeanOfTheValues) {  // a query, or all keys, of nothing but zeros
  for (const DataType kv : kv_types) {
    SCOPED_TRACE(to_string(kv));
    const std::int64_t dim = draw_width() % 130 + 1, past = draw(0, 600);
    const bool zero_query = draw(0, 1) == 0, zero_values = draw(0, 1) == 0;
    KvProblem problem(random_, kv, {{past, 1}}, 1, dim);
    for (std::int64_t p = 0; p <= past; ++p) {
      if (!zero_query) problem.set(problem.cache(), 0, p, 0, 0, Values(static_cast<std::size_t>(dim), 0.0));
      if (zero_values) problem.set(problem.cache(), 0, p, 1, 0, Values(static_cast<std::size_t>(dim), 0.0));
    }
    const Step step = problem.whole();
    Cells query(dtype(), zero_query ? Values(static_cast<std::size_t>(dim), 0.0) : normal(dim)), y(dtype(), dim);
    run(kernels().attention,
        AttentionArgs{.query = query.data(),
                      .y = y.data(),
                      .kv = step.kv,
                      .scale = 1.0F,
                      .causal = true,
                      .window = 0,
                      .tokens = 1,
                      .heads = 1},
        1, {.max_head_dim = dim});
    const Values rows = problem.rows(0, past + 1, 1, 0);
    for (std::int64_t d = 0; d < dim; ++d) {
      double mean = 0.0;
      for (auto at = static_cast<std::size_t>(d); at < rows.size(); at += static_cast<std::size_t>(dim))
        mean += rows[at] / static_cast<double>(past + 1);
      EXPECT_NEAR(y.at(d), mean, zero_values ? 0.0 : bound(kv) * 4.0) << d;  // of values around 1
    }
  }
}

TEST_P(Attention, WhatIsNoNumberSpoilsThoseWhoSeeIt) {  // and nobody else: not those before it, in one tile with it
  for (const DataType kv : kv_types) {
    SCOPED_TRACE(to_string(kv));
    const std::int64_t dim = draw_width() % 80 + 1, tokens = draw(20, 60), heads = draw(1, 4),
                       bad = draw(1, tokens - 1);
    KvProblem problem(random_, kv, {{0, tokens}}, 1, dim);
    Step step = problem.whole();
    Cells query(dtype(), normal(tokens * heads * dim)), y(dtype(), query.size());
    AttentionArgs args{.query = query.data(),
                       .y = y.data(),
                       .kv = step.kv,
                       .scale = 0.2F,
                       .causal = true,
                       .window = 0,
                       .tokens = tokens,
                       .heads = heads};
    run(kernels().attention, args, 1, {.max_head_dim = dim});
    const Values before = y.values();
    // Written by the kernel, whose rounding to int8 has to tell of it.
    Cells key(dtype(), Values(static_cast<std::size_t>(tokens * dim), 1.0)), value(dtype(), key.values());
    const double infinity = std::numeric_limits<double>::infinity();
    (draw(0, 1) == 0 ? key : value).set(bad * dim + draw(0, dim - 1), draw(0, 1) == 0 ? std::nan("") : infinity);
    const KvWriteArgs write{.key = key.data(), .value = value.data(), .kv = step.kv, .tokens = tokens};
    const std::vector<std::byte> old = problem.cache().bits();
    run(kernels().kv_write, write);
    const Cells written = problem.cache();
    std::memcpy(problem.cache().data(), old.data(), old.size());
    problem.copy_position(written, 0, bad, 0);
    run(kernels().attention, args, 1, {.max_head_dim = dim});
    for (std::int64_t head = 0; head < heads; ++head)
      for (std::int64_t t = 0; t < tokens; ++t) {
        bool wrong = false;
        for (std::int64_t d = 0; d < dim; ++d) {
          const std::int64_t at = (head * tokens + t) * dim + d;
          if (t < bad) {
            EXPECT_EQ(y.at(at), before[static_cast<std::size_t>(at)]) << t << " before " << bad;
          }
          wrong = wrong || !std::isfinite(y.at(at));
        }
        if (t >= bad && kv == DataType::i8) {
          EXPECT_TRUE(wrong) << t << " behind " << bad;
        }
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Attention, ::testing::ValuesIn(all_targets()), target_name);

}  // namespace
}  // namespace lamella::cpu::testing
