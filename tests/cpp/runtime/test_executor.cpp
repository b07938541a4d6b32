// Plans run: each Deep-Fusion region against the ops that it replaces, and all of them against the oracle, which is the
// plain plan on the reference kernels.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "base/affinity.h"
#include "formats.h"
#include "models.h"
#include "plan/passes/deep_fusion.h"
#include "plan/plans.h"
#include "plan/verify.h"

namespace lamella::testing {
namespace {

/// Runs one ragged step of three sequences twice (the second step continues them) and returns the outputs of both.
std::vector<float> run(const Plan& plan, const ResidentWeights& weights, cpu::KernelSet kernels, int threads = 2) {
  ThreadTeam team(threads);
  KvMemory kv(plan, "test");
  const Allocation workspace(cpu::CpuExecutor::workspace_bytes(plan, threads), "test");
  cpu::CpuExecutor executor(plan, {weights, kv, {workspace.data(), workspace.size()}}, team,
                            {cpu::kernel_table(kernels, DataType::f32)});
  std::vector<float> outputs;
  const std::array<std::int32_t, 3> lengths = {7, 1, 12};
  const bool encoder = plan.find("logits") == nullptr && plan.find("greedy") == nullptr;
  for (int part = 0; part < (encoder ? 1 : 2); ++part) {
    const std::int64_t tokens = part == 0 ? 20 : 3;
    StepInput step(tokens, 3, 3, 2);
    std::int32_t token = 0;
    for (std::int32_t s = 0; s < 3; ++s) {
      const std::int32_t count = part == 0 ? lengths[static_cast<std::size_t>(s)] : 1;
      step.sequences()[2 * static_cast<std::size_t>(s)] = token;
      step.sequences()[2 * static_cast<std::size_t>(s) + 1] = count;
      // Block 11 - 2 s and 10 - 2 s: tables that are not in order.
      step.block_tables()[2 * static_cast<std::size_t>(s)] = 11 - 2 * s;
      step.block_tables()[2 * static_cast<std::size_t>(s) + 1] = 10 - 2 * s;
      for (std::int32_t i = 0; i < count; ++i, ++token) {
        const auto at = static_cast<std::size_t>(token);
        step.token_ids()[at] = (token * 7 + part * 3) % 60;
        step.positions()[at] = part == 0 ? i : lengths[static_cast<std::size_t>(s)];
        step.rope_lengths()[at] = part == 0 ? count : lengths[static_cast<std::size_t>(s)] + 1;
      }
      step.row_indices()[static_cast<std::size_t>(s)] = token - 1;
    }
    const std::span<const float> output = executor.run(step);
    outputs.insert(outputs.end(), output.begin(), output.end());
  }
  return outputs;
}

struct Case {
  ModelSpec spec;
  PlanOutput output;
};

/// A family with a bias behind its vocabulary.
ModelSpec biased_head(int layers) {
  ModelSpec spec = neox_like(layers);
  spec.head.bias = true;
  return spec;
}

std::vector<Case> cases() {
  return {{llama_like(3), PlanOutput::logits},
          {gpt2_like(3), PlanOutput::logits},
          {neox_like(3), PlanOutput::logits},
          {llama_like(3), PlanOutput::greedy},
          {biased_head(3), PlanOutput::greedy},
          {bert_like(3), PlanOutput::hidden},
          {bert_like(3), PlanOutput::mean},
          {bert_like(3), PlanOutput::pooler},
          {mixtral_like(3), PlanOutput::logits},
          {qwen_moe_like(3), PlanOutput::greedy},
          {gpt_moe_like(3), PlanOutput::logits},
          {sigmoid_moe_like(3), PlanOutput::logits},
          {normed_heads(3, false), PlanOutput::logits},
          {normed_heads(3, true), PlanOutput::logits}};
}

TEST(Executor, EachRegionGivesTheBitsOfTheOpsThatItReplaces) {
  const cpu::KernelSet best = cpu::available_kernel_sets().back();
  for (const Case& each : cases()) {
    const Plan plain = plan_of(each.spec, each.output);
    ResidentWeights weights(plain.weights);
    fill_lively(weights, 3);
    const std::vector<float> expected = run(plain, weights, best);
    for (const Region region : fusable_regions) {
      const std::array only = {region};
      const Plan fused = deep_fusion(plain, only);
      const bool normed = region == Region::qkv && each.spec.layers[0].attention.query_norm.kind != NormKind::none;
      const bool is_there = !normed && std::ranges::find(plain.ops, region, &Op::region) != plain.ops.end();
      ASSERT_EQ(fused.ops.size() < plain.ops.size(), is_there);
      EXPECT_EQ(run(fused, weights, best), expected) << each.spec.family << " " << to_string(region);
    }
    EXPECT_EQ(run(deep_fusion(plain), weights, best), expected) << each.spec.family;
  }
}

TEST(Executor, EverySetAgreesWithTheOracle) {
  for (const Case& each : cases()) {
    const Plan plain = plan_of(each.spec, each.output);
    ResidentWeights weights(plain.weights);
    fill_lively(weights, 4);
    const std::vector<float> oracle = run(plain, weights, cpu::KernelSet::reference);
    for (const cpu::KernelSet set : cpu::available_kernel_sets()) {
      if (set == cpu::KernelSet::reference) continue;
      EXPECT_LT(relative_error(run(deep_fusion(plain), weights, set), oracle), 1e-5)
          << each.spec.family << " " << to_string(set);
    }
  }
}

// Where inputs are rounded to int8, two correct sums that differ in their last bit can make codes that differ by one: those
// formats are held to the oracle op by op (tests/cpp/cpu).
TEST(Executor, EverySetAgreesWithTheOracleInEveryWeightOnlyFormat) {
  for (const Case& each : cases())
    for (const WeightFormat& format : all_formats()) {
      if (has_int8_inputs(format)) continue;
      Plan plain = plan_of(each.spec, each.output);
      for (WeightDeclaration& weight : plain.weights)
        if (!is_vector(weight.id.slot)) weight.format = format;
      ResidentWeights weights(plain.weights);
      fill_lively(weights, 6);
      const std::vector<float> oracle = run(plain, weights, cpu::KernelSet::reference);
      for (const cpu::KernelSet set : cpu::available_kernel_sets()) {
        if (set == cpu::KernelSet::reference) continue;
        EXPECT_LT(relative_error(run(deep_fusion(plain), weights, set), oracle), 1e-5)
            << each.spec.family << " " << to_string(set) << " " << to_string(format);
      }
    }
}

TEST(Executor, ThreadsChangeNoBit) {
  for (const ModelSpec& spec : {llama_like(3), mixtral_like(3), qwen_moe_like(3)}) {
    const Plan plan = deep_fusion(plan_of(spec));
    ResidentWeights weights(plan.weights);
    fill_lively(weights, 5);
    const cpu::KernelSet best = cpu::available_kernel_sets().back();
    const std::vector<float> one = run(plan, weights, best, 1);
    for (const int threads : {2, 3, 4, 7}) EXPECT_EQ(run(plan, weights, best, threads), one) << threads;
  }
}

/// The most threads that shared an op since it was set to zero.
std::atomic<int> most_sharing{0};

TEST(Executor, NoMoreThreadsTakePartThanMayRunWhereThatIsAskedFor) {
  const Plan plan = deep_fusion(plan_of(llama_like(2)));
  ResidentWeights weights(plan.weights);
  fill_lively(weights, 6);
  cpu::KernelTable kernels = cpu::kernel_table(cpu::available_kernel_sets().back(), DataType::f32);
  kernels.layout_attention = [](const cpu::AttentionArgs& args, const cpu::Worker& worker) {
    most_sharing = std::max<int>(most_sharing, worker.count);
    cpu::kernel_table(cpu::available_kernel_sets().back(), DataType::f32).layout_attention(args, worker);
  };
  ThreadTeam team(3);
  KvMemory kv(plan, "test");
  const Allocation workspace(cpu::CpuExecutor::workspace_bytes(plan, team.size()), "test");
  const auto logits = [&](cpu::Members members) {
    cpu::CpuExecutor executor(plan, {weights, kv, {workspace.data(), workspace.size()}}, team, {kernels, {}}, members);
    StepInput step(5, 1, 1, 1);
    step.sequences()[1] = 5;
    for (std::int32_t i = 0; i < 5; ++i) {
      step.token_ids()[static_cast<std::size_t>(i)] = 7 * i;
      step.positions()[static_cast<std::size_t>(i)] = i;
      step.rope_lengths()[static_cast<std::size_t>(i)] = 5;
    }
    step.row_indices()[0] = 4;
    most_sharing = 0;
    const std::span<const float> row = executor.run(step);
    return std::vector<float>(row.begin(), row.end());
  };
  const std::vector<float> all = logits(cpu::Members::all);
  EXPECT_EQ(most_sharing, 3);
  EXPECT_EQ(logits(cpu::Members::as_cores), all);
  EXPECT_EQ(most_sharing, std::min(3, affine_cores()));

  cpu_set_t cores;
  ASSERT_EQ(sched_getaffinity(0, sizeof cores, &cores), 0) << "a kernel for more than 1024 cores";
  int first = 0;
  while (!CPU_ISSET(first, &cores)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(logits(cpu::Members::as_cores), all);
  EXPECT_EQ(most_sharing, 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof cores, &cores), 0);
}

/// The rows of a step that continues two long prompts with a token each, and what attention says that it does.
std::pair<std::vector<float>, std::string> long_decode(const Plan& plan, const ResidentWeights& weights, int threads,
                                                       cpu::Members members) {
  ThreadTeam team(threads);
  KvMemory kv(plan, "test");
  const Allocation workspace(cpu::CpuExecutor::workspace_bytes(plan, threads), "test");
  const cpu::KernelTable& kernels = cpu::kernel_table(cpu::available_kernel_sets().back(), DataType::f32);
  cpu::CpuExecutor executor(plan, {weights, kv, {workspace.data(), workspace.size()}}, team, {kernels, {}}, members);
  const std::array<std::int32_t, 2> lengths = {700, 513};
  std::vector<float> rows;
  for (const bool prompt : {true, false}) {
    StepInput step(prompt ? lengths[0] + lengths[1] : 2, 2, 2, 44);
    std::size_t token = 0;
    for (std::size_t s = 0; s < 2; ++s) {
      const std::int32_t count = prompt ? lengths[s] : 1;
      step.sequences()[2 * s] = static_cast<std::int32_t>(token);
      step.sequences()[2 * s + 1] = count;
      for (std::size_t b = 0; b < 44; ++b) step.block_tables()[44 * s + b] = static_cast<std::int32_t>(44 * s + b);
      for (std::int32_t i = 0; i < count; ++i, ++token) {
        step.token_ids()[token] = static_cast<std::int32_t>((token * 7 + s) % 60);
        step.positions()[token] = prompt ? i : lengths[s];
        step.rope_lengths()[token] = lengths[s] + (prompt ? 0 : 1);
      }
      step.row_indices()[s] = static_cast<std::int32_t>(token) - 1;
    }
    const std::span<const float> output = executor.run(step);
    rows.assign(output.begin(), output.end());
  }
  const auto attention = std::ranges::find(plan.ops, OpKind::layout_attention, &Op::kind);
  return {rows, executor.kernel_name(static_cast<std::size_t>(attention - plan.ops.begin()))};
}

TEST(Executor, LongContextsAreSplitWhereHeadsDoNotDivideByThoseWhoTakePart) {
  ModelSpec spec = llama_like(2);
  spec.max_positions = 800;
  for (LayerSpec& layer : spec.layers) layer.attention.kv_heads = 3;
  const PlanOptions options{.dtype = DataType::f32,
                            .kv_pool_blocks = 88,
                            .bounds = {.tokens = 1300, .sequences = 2, .rows = 2, .kv_blocks = 44}};
  const Plan plan = deep_fusion(build_plan(spec, options));
  EXPECT_EQ(cpu::scratch_bounds(plan, 1).split_group, 0);
  EXPECT_EQ(cpu::scratch_bounds(plan, 3).split_group, 2);  // all three divide, but two of them may run alone
  ResidentWeights weights(plan.weights);
  fill_lively(weights, 7);
  const auto [one, whole] = long_decode(plan, weights, 1, cpu::Members::all);
  EXPECT_EQ(whole.find("split"), std::string::npos) << whole;
  for (const int threads : {2, 3, 5, 8})
    for (const cpu::Members members : {cpu::Members::all, cpu::Members::as_cores}) {
      const auto [rows, attention] = long_decode(plan, weights, threads, members);
      EXPECT_EQ(rows, one) << threads << " " << attention;
      if (members != cpu::Members::all) continue;
      EXPECT_EQ(attention.find("contexts split") != std::string::npos, threads != 3) << threads << " " << attention;
    }
}

TEST(Executor, RefusesAStepBeyondThePlansBounds) {
  const Plan plan = plan_of(llama_like(1));
  ResidentWeights weights(plan.weights);
  ThreadTeam team(1);
  KvMemory kv(plan, "test");
  const Allocation workspace(cpu::CpuExecutor::workspace_bytes(plan, team.size()), "test");
  cpu::CpuExecutor executor(plan, {weights, kv, {workspace.data(), workspace.size()}}, team,
                            {cpu::kernel_table(cpu::KernelSet::reference, DataType::f32)});
  EXPECT_THROW(static_cast<void>(executor.run(StepInput(25, 1, 1, 1))), Error);
  EXPECT_THROW(static_cast<void>(executor.run(StepInput(1, 5, 1, 1))), Error);
}

TEST(Executor, TimesEveryOp) {
  const Plan plan = deep_fusion(plan_of(llama_like(2)));
  ResidentWeights weights(plan.weights);
  fill_lively(weights, 6);
  ThreadTeam team(2);
  KvMemory kv(plan, "test");
  const Allocation workspace(cpu::CpuExecutor::workspace_bytes(plan, team.size()), "test");
  cpu::CpuExecutor executor(plan, {weights, kv, {workspace.data(), workspace.size()}}, team,
                            {cpu::kernel_table(cpu::available_kernel_sets().back(), DataType::f32)});
  StepInput step(1, 1, 1, 1);
  step.sequences()[1] = 1;
  step.rope_lengths()[0] = 1;
  const std::vector<double> seconds = executor.run_timed(step);
  ASSERT_EQ(seconds.size(), plan.ops.size());
  for (const double each : seconds) EXPECT_GE(each, 0.0);
  EXPECT_NE(executor.kernel_name(2).find("/norm_qkv"), std::string::npos);
  EXPECT_EQ(executor.arithmetic(2), Arithmetic::f32);
  EXPECT_NE(executor.kernel_name(2).find("SBI-GeMM of fp32"), std::string::npos) << executor.kernel_name(2);
}

}  // namespace
}  // namespace lamella::testing
