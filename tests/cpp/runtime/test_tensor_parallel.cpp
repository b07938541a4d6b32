// Plans cut across ranks, run on threads of this process, beside the plan of one rank.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "comm/local_world.h"
#include "comm/ranks.h"
#include "cpu/cpu_executor.h"
#include "formats.h"
#include "models.h"
#include "parts.h"
#include "plan/cost.h"
#include "plan/passes/deep_fusion.h"
#include "plan/passes/tensor_slicing.h"
#include "plan/plans.h"
#include "plan/verify.h"

namespace lamella::testing {
namespace {

/// Two steps of three ragged sequences, the second of which continues the first; `encoder`: the first only.
std::vector<StepInput> steps(bool encoder) {
  const std::array<std::int32_t, 3> lengths = {7, 1, 12};
  std::vector<StepInput> all;
  for (int part = 0; part < (encoder ? 1 : 2); ++part) {
    StepInput step(part == 0 ? 20 : 3, 3, 3, 2);
    std::int32_t token = 0;
    for (std::size_t s = 0; s < 3; ++s) {
      const std::int32_t count = part == 0 ? lengths[s] : 1;
      step.sequences()[2 * s] = token;
      step.sequences()[2 * s + 1] = count;
      step.block_tables()[2 * s] = static_cast<std::int32_t>(11 - 2 * s);
      step.block_tables()[2 * s + 1] = static_cast<std::int32_t>(10 - 2 * s);
      for (std::int32_t i = 0; i < count; ++i, ++token) {
        const auto at = static_cast<std::size_t>(token);
        step.token_ids()[at] = (token * 7 + part * 3) % 60;
        step.positions()[at] = part == 0 ? i : lengths[s];
        step.rope_lengths()[at] = step.positions()[at] + 1;
      }
      step.row_indices()[s] = token - 1;
    }
    all.push_back(std::move(step));
  }
  return all;
}

std::vector<float> run_rank(const Plan& plan, const ResidentWeights& weights, cpu::KernelSet kernels, int threads,
                            comm::Communicator* tensor) {
  ThreadTeam team(threads);
  KvMemory kv(plan, "test");
  const Allocation workspace(cpu::CpuExecutor::workspace_bytes(plan, threads), "test");
  cpu::CpuExecutor executor(plan, {weights, kv, {workspace.data(), workspace.size()}, {.tensor = tensor}}, team,
                            {cpu::kernel_table(kernels, dtype_of(plan))});
  std::vector<float> outputs;
  for (const StepInput& step : steps(plan.find("logits") == nullptr && plan.find("greedy") == nullptr)) {
    const std::span<const float> output = executor.run(step);
    outputs.insert(outputs.end(), output.begin(), output.end());
  }
  return outputs;
}

/// What each of `ranks` ranks returns.
std::vector<std::vector<float>> run_ranks(const Plan& plain, const ResidentWeights& whole, cpu::KernelSet kernels,
                                          int ranks, bool fused, int threads = 1) {
  comm::LocalWorld world(ranks);
  const comm::testing::Ends ends = world.all();
  std::vector<std::vector<float>> outputs(static_cast<std::size_t>(ranks));
  comm::testing::run_sound_ranks(ranks, [&](int rank) {
    Plan plan = tensor_slicing(plain, {.rank = rank, .ranks = ranks});
    if (fused) plan = deep_fusion(plan);
    ResidentWeights own(plan.weights);
    take_parts(whole, own);
    outputs[static_cast<std::size_t>(rank)] =
        run_rank(plan, own, kernels, threads, ends[static_cast<std::size_t>(rank)].get());
  });
  return outputs;
}

struct Case {
  ModelSpec spec;
  PlanOutput output;
};

std::vector<Case> cases() {
  ModelSpec biased = neox_like(3);
  biased.head.bias = true;
  return {{llama_like(3), PlanOutput::logits},
          {gpt2_like(3), PlanOutput::logits},
          {biased, PlanOutput::logits},
          {bert_like(3), PlanOutput::hidden},
          {bert_like(3), PlanOutput::mean},
          {bert_like(3), PlanOutput::pooler},
          {mixtral_like(3), PlanOutput::logits},
          {qwen_moe_like(3), PlanOutput::logits},
          {gpt_moe_like(3), PlanOutput::logits},
          {sigmoid_moe_like(3), PlanOutput::logits},
          {normed_heads(3, false), PlanOutput::logits}};
}

TEST(TensorParallel, RanksAgreeWithOneInFp32) {
  for (const Case& each : cases()) {
    const Plan plain = plan_of(each.spec, each.output);
    ResidentWeights weights(plain.weights);
    fill_lively(weights, 4);
    for (const cpu::KernelSet set : cpu::available_kernel_sets()) {
      const bool fused = set != cpu::KernelSet::reference;
      const std::vector<float> one = run_rank(fused ? deep_fusion(plain) : plain, weights, set, 1, nullptr);
      for (int ranks = 2; ranks <= 4; ++ranks) {
        const auto outputs = run_ranks(plain, weights, set, ranks, fused, set == cpu::KernelSet::baseline ? 2 : 1);
        EXPECT_LT(relative_error(outputs[0], one), 1e-5) << each.spec.family << " " << ranks << " " << to_string(set);
        for (const std::vector<float>& output : outputs)
          EXPECT_EQ(output, outputs[0]) << each.spec.family << " " << ranks;
      }
    }
  }
}

TEST(TensorParallel, TheBestTokenIsTheBestOfAllRanks) {
  for (const ModelSpec& spec : {llama_like(3), gpt2_like(3), cases()[2].spec}) {
    const Plan logits = plan_of(spec, PlanOutput::logits), greedy = plan_of(spec, PlanOutput::greedy);
    ResidentWeights weights(logits.weights);
    fill_lively(weights, 8);
    for (const cpu::KernelSet set : cpu::available_kernel_sets()) {
      const bool fused = set != cpu::KernelSet::reference;
      for (int ranks = 2; ranks <= 4; ++ranks) {
        const std::vector<float> all = run_ranks(logits, weights, set, ranks, fused)[0],
                                 best = run_ranks(greedy, weights, set, ranks, fused)[0];
        const auto vocab = static_cast<std::size_t>(spec.vocab);
        ASSERT_EQ(best.size() / 2, all.size() / vocab);
        for (std::size_t row = 0; row < best.size() / 2; ++row) {
          const auto begin = all.begin() + static_cast<std::ptrdiff_t>(row * vocab),
                     top = std::max_element(begin, begin + static_cast<std::ptrdiff_t>(vocab));
          EXPECT_EQ(best[2 * row], *top) << to_string(set);
          EXPECT_EQ(std::bit_cast<std::int32_t>(best[2 * row + 1]), top - begin) << to_string(set);
        }
      }
    }
  }
}

/// Codes are cut, never made anew; inputs that are rounded are rounded as on one rank. What is summed over ranks may differ in
/// its last bits, and then, behind another rounding to int8, by a code.
TEST(TensorParallel, EveryFormatAgreesWithOneRank) {
  ModelSpec spec = llama_like(2);
  spec.hidden = 128;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.heads = 4;
    layer.attention.kv_heads = 2;
    layer.attention.head_dim = 32;
    layer.attention.rope->rotary_dim = 32;
    layer.mlp.intermediate = 256;
  }
  const cpu::KernelSet best = cpu::available_kernel_sets().back();
  for (const WeightFormat& format : all_formats()) {
    SCOPED_TRACE(to_string(format));
    Plan plain = plan_of(spec);
    for (WeightDeclaration& weight : plain.weights)
      if (!is_vector(weight.id.slot)) weight.format = fitting(format, weight.id.slot);
    ResidentWeights weights(plain.weights);
    fill_lively(weights, 6);
    const std::vector<float> one = run_rank(deep_fusion(plain), weights, best, 1, nullptr);
    for (const int ranks : {2, 4}) {
      const std::vector<float> output = run_ranks(plain, weights, best, ranks, true)[0];
      if (has_int8_inputs(format)) EXPECT_EQ(output, one) << ranks;  // nothing is summed over ranks
      else EXPECT_LT(relative_error(output, one), 1e-5) << ranks;
    }
  }
}

TEST(TensorParallel, NarrowActivationsAreRoundedOnceBehindTheSum) {
  const cpu::KernelSet best = cpu::available_kernel_sets().back();
  for (const DataType dtype : {DataType::bf16, DataType::f16}) {
    for (const Case& each : cases()) {
      PlanOptions options = plan_options(each.output);
      options.dtype = dtype;
      ModelSpec spec = each.spec;
      for (LayerSpec& layer : spec.layers)
        if (layer.mlp.experts) {  // a rounding would send tokens to other experts
          layer.mlp.experts->top_k = layer.mlp.experts->count;
          if (layer.mlp.experts->router == RouterKind::top_1) layer.mlp.experts->router = RouterKind::softmax_top_k;
        }
      const Plan plain = build_plan(spec, options);
      ResidentWeights weights(plain.weights);
      fill_lively(weights, 5);
      const std::vector<float> one = run_rank(deep_fusion(plain), weights, best, 1, nullptr);
      for (const bool fused : {false, true}) {
        const auto outputs = run_ranks(plain, weights, best, 3, fused);
        EXPECT_LT(relative_error(outputs[0], one), dtype == DataType::bf16 ? 3e-2 : 4e-3) << each.spec.family;
        EXPECT_EQ(outputs[1], outputs[0]);
      }
    }
  }
}

}  // namespace
}  // namespace lamella::testing
