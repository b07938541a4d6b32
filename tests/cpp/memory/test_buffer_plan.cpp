#include <gtest/gtest.h>

#include "memory/buffer_plan.h"
#include "plan/passes/deep_fusion.h"
#include "plan/plans.h"

namespace lamella::testing {
namespace {

void expect_sound(const Plan& plan, const BufferPlan& buffers) {
  for (const Placement& a : buffers.placements) {
    EXPECT_EQ(a.offset % buffer_alignment, 0);
    EXPECT_LE(a.offset + a.bytes, buffers.bytes);
    EXPECT_GE(a.bytes, byte_count(plan.buffer(a.buffer), plan.bounds));
    for (const Placement& b : buffers.placements) {
      if (a.buffer == b.buffer || a.last < b.first || b.last < a.first) continue;
      EXPECT_TRUE(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset)
          << plan.buffer(a.buffer).name << " and " << plan.buffer(b.buffer).name << " live together and overlap";
    }
  }
}

TEST(BufferPlan, BuffersThatLiveTogetherNeverOverlap) {
  for (const ModelSpec& spec : {llama_like(4), gpt2_like(4), neox_like(4)}) {
    const Plan plan = plan_of(spec), fused = deep_fusion(plan);
    expect_sound(plan, plan_buffers(plan));
    expect_sound(fused, plan_buffers(fused));
  }
  const Plan bert = plan_of(bert_like(4), PlanOutput::mean);
  expect_sound(bert, plan_buffers(bert));
}

TEST(BufferPlan, DepthCostsNoActivationMemory) {
  EXPECT_EQ(plan_buffers(plan_of(llama_like(2))).bytes, plan_buffers(plan_of(llama_like(30))).bytes);
  EXPECT_LT(plan_buffers(plan_of(llama_like(30))).bytes * 10,
            plan_buffers(plan_of(llama_like(30))).bytes_without_reuse);
}

TEST(BufferPlan, B1_TheDeepestModelIsPlannedInTimeLinearInItsLayers) {
  // 4096 layers, 90 thousand buffers: what looks through all of them for each takes minutes here.
  const Plan plan = plan_of(llama_like(4096));
  const BufferPlan buffers = plan_buffers(plan);
  EXPECT_EQ(buffers.bytes, plan_buffers(plan_of(llama_like(2))).bytes);
  for (const Placement& placed : buffers.placements) EXPECT_EQ(buffers.find(placed.buffer), &placed);
}

TEST(BufferPlan, HasEveryBufferButStates) {
  const Plan plan = plan_of(gpt2_like());
  const BufferPlan buffers = plan_buffers(plan);
  for (std::size_t i = 0; i < plan.buffers.size(); ++i)
    EXPECT_EQ(buffers.find(BufferId{static_cast<std::uint32_t>(i)}) == nullptr,
              plan.buffers[i].kind == BufferKind::state);
}

TEST(BufferPlan, TableNamesEveryBufferAndTheSum) {
  const Plan plan = plan_of(gpt2_like(1));
  const BufferPlan buffers = plan_buffers(plan);
  const std::string table = to_table(plan, buffers);
  EXPECT_NE(table.find("logits"), std::string::npos);
  EXPECT_NE(table.find(std::to_string(buffers.bytes) + " bytes"), std::string::npos);
}

}  // namespace
}  // namespace lamella::testing
