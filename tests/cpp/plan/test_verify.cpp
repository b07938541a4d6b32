// Every rule of verify, broken once: a pass that made such a plan would be caught.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <ostream>

#include "lamella/error.h"
#include "plan/passes/deep_fusion.h"
#include "plan/verify.h"
#include "plans.h"

namespace lamella::testing {
namespace {

/// The message with which verify refuses `plan`; empty where it accepts it.
std::string refusal(const Plan& plan) {
  try {
    verify(plan);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::internal);
    return error.what();
  }
}

std::size_t first(const Plan& plan, OpKind kind) {
  return static_cast<std::size_t>(std::ranges::find(plan.ops, kind, &Op::kind) - plan.ops.begin());
}

struct Breakage {
  const char* name;
  std::function<void(Plan&)> apply;
  const char* message;
};

void PrintTo(const Breakage& breakage, std::ostream* out) { *out << breakage.name; }

class VerifyRefuses : public ::testing::TestWithParam<Breakage> {};

TEST_P(VerifyRefuses, Plan) {
  Plan plan = plan_of(llama_like());
  ASSERT_EQ(refusal(plan), "");
  GetParam().apply(plan);
  EXPECT_NE(refusal(plan).find(GetParam().message), std::string::npos) << refusal(plan);
}

// NOLINTNEXTLINE(bugprone-throwing-static-initialization): a test program that cannot start has failed
const Breakage breakages[] = {
    {"UseBeforeDefinition", [](Plan& p) { std::swap(p.ops[2], p.ops[3]); }, "before it is defined"},
    {"SecondDefinition", [](Plan& p) { p.ops.insert(p.ops.begin() + 3, p.ops[2]); }, "a second time"},
    {"WriteToInput", [](Plan& p) { p.ops[2].outputs = {p.ops[0].inputs[0]}; }, "writes the input"},
    {"UnknownBuffer", [](Plan& p) { p.ops[2].inputs = {BufferId{9999}}; }, "reads buffer 9999"},
    {"UnknownWeight", [](Plan& p) { p.ops[2].weights = {WeightIndex{9999}}; }, "uses weight 9999"},
    {"UnusedBuffer", [](Plan& p) { p.buffers.push_back({.name = "orphan", .shape = {fixed(1)}}); }, "never used"},
    {"OutputNeverDefined", [](Plan& p) { p.ops.pop_back(); }, "never"},
    {"AttentionWithoutWrite",
     [](Plan& p) { p.ops.erase(p.ops.begin() + static_cast<long>(first(p, OpKind::kv_write))); },
     "before its layer has written it"},
    {"AnotherLayersKv",
     [](Plan& p) {
       const auto reader =
           std::ranges::find_if(p.ops, [](const Op& op) { return op.kind == OpKind::attention && op.layer == 1; });
       reader->inputs[4] = p.ops[first(p, OpKind::attention)].inputs[4];
     },
     "before its layer has written it"},
    {"WrongWidth", [](Plan& p) { p.buffers[static_cast<std::size_t>(p.ops[3].outputs[0])].shape[1] = fixed(35); },
     "linear"},
    {"WrongSymbol",
     [](Plan& p) { p.buffers[static_cast<std::size_t>(p.ops[2].outputs[0])].shape[0] = sized(Symbol::rows); },
     "another shape"},
    {"WrongWeight",
     [](Plan& p) { p.ops[first(p, OpKind::linear)].weights = p.ops[first(p, OpKind::linear) + 1].weights; },
     "multiplies"},
    {"MixedTypes", [](Plan& p) { p.buffers[static_cast<std::size_t>(p.ops[2].outputs[0])].type = DataType::bf16; },
     "mixes the types"},
    {"Arity", [](Plan& p) { p.ops[first(p, OpKind::residual)].inputs.pop_back(); }, "inputs"},
    {"LayersOutOfOrder", [](Plan& p) { p.ops[2].layer = 1; }, "stands after layer"},
    {"RegionTorn", [](Plan& p) { p.ops[4].region = Region::mlp_up; }, "comes back to region"},
    {"RotatesTooMuch", [](Plan& p) { p.ops[first(p, OpKind::rope)].attributes.rope->rotary_dim = 8; }, "another shape"},
};

INSTANTIATE_TEST_SUITE_P(, VerifyRefuses, ::testing::ValuesIn(breakages),
                         [](const auto& breakage) { return breakage.param.name; });

/// Plans of every family, output and element type, as built and fused.
std::vector<Plan> all_plans() {
  std::vector<Plan> plans;
  for (const DataType dtype : {DataType::f32, DataType::bf16})
    for (const auto& [spec, output] :
         {std::pair{llama_like(), PlanOutput::logits}, std::pair{llama_like(), PlanOutput::greedy},
          std::pair{gpt2_like(), PlanOutput::logits}, std::pair{neox_like(), PlanOutput::logits},
          std::pair{bert_like(), PlanOutput::hidden}, std::pair{bert_like(), PlanOutput::mean},
          std::pair{bert_like(), PlanOutput::pooler}}) {
      PlanOptions options = plan_options(output);
      options.dtype = dtype;
      plans.push_back(build_plan(spec, options));
      plans.push_back(deep_fusion(plans.back()));
    }
  return plans;
}

constexpr DataType all_types[] = {DataType::f32, DataType::bf16, DataType::i32, DataType::i8};

/// Whether a linear writes it and nothing reads it but a residual: it may wait in fp32 until ranks have added theirs.
bool may_be_a_summand(const Plan& plan, BufferId written, BufferId read) {
  return std::ranges::all_of(plan.ops, [&](const Op& op) {
    const bool writes = std::ranges::find(op.outputs, written) != op.outputs.end();
    const bool reads = std::ranges::find(op.inputs, read) != op.inputs.end();
    return (!writes || op.kind == OpKind::linear) && (!reads || (op.kind == OpKind::residual && op.inputs[0] == read));
  });
}

TEST(Verify, RefusesAnotherTypeOfAnyOneBuffer) {
  for (const Plan& plan : all_plans())
    for (std::size_t i = 0; i < plan.buffers.size(); ++i)
      for (const DataType type : all_types) {
        Plan changed = plan;
        changed.buffers[i].type = type;
        // The KV cache may hold K and V in another type than the dtype; in int8 its rows have room for a scale.
        const bool other_kv =
            plan.buffers[i].kind == BufferKind::state && type != DataType::i32 && type != DataType::i8;
        const BufferId id{static_cast<std::uint32_t>(i)};
        const bool summand = type == DataType::f32 && may_be_a_summand(plan, id, id);
        EXPECT_EQ(refusal(changed) == "", type == plan.buffers[i].type || other_kv || summand)
            << plan.buffers[i].name << " as " << to_string(type) << " in\n"
            << to_table(plan);
      }
}

TEST(Verify, RefusesAnOpAllOfAnotherType) {
  for (const Plan& plan : all_plans())
    for (const Op& op : plan.ops)
      for (const DataType type : all_types) {
        Plan changed = plan;
        bool differs = false;
        for (const std::vector<BufferId>& operands : {op.inputs, op.outputs})
          for (const BufferId id : operands) {
            Buffer& buffer = changed.buffers[static_cast<std::size_t>(id)];
            if (buffer.kind == BufferKind::input) continue;
            differs = differs || buffer.type != type;
            buffer.type = type;
          }
        const bool summand =
            type == DataType::f32 && op.kind == OpKind::add_bias && may_be_a_summand(plan, op.inputs[0], op.outputs[0]);
        EXPECT_EQ(refusal(changed) == "", !differs || summand)
            << to_string(op.kind) << " as " << to_string(type) << " in\n"
            << to_table(plan);
      }
}

TEST(Verify, RefusesAFusedOpWithoutItsWeight) {
  Plan plan = deep_fusion(plan_of(llama_like()));
  plan.ops[first(plan, OpKind::norm_qkv)].weights.pop_back();
  EXPECT_NE(refusal(plan).find("lacks its weight value"), std::string::npos) << refusal(plan);
}

TEST(Verify, RefusesMixturesThatAreWrongInOneThing) {
  const auto op = [](Plan& p, OpKind kind) -> Op& { return p.ops[first(p, kind)]; };
  const auto buffer = [](Plan& p, BufferId id) -> Buffer& { return p.buffers[static_cast<std::size_t>(id)]; };
  const Breakage each[] = {
      {"LogitsOfOtherExperts", [&](Plan& p) { op(p, OpKind::route).attributes.experts->count = 6; }, "another shape"},
      {"NoExperts", [&](Plan& p) { op(p, OpKind::route).attributes.experts.reset(); }, "knows no experts"},
      {"ChoicesAsFloats", [&](Plan& p) { buffer(p, op(p, OpKind::route).outputs[0]).type = DataType::f32; }, "int32"},
      {"RowsOfOneChoice",
       [&](Plan& p) { buffer(p, op(p, OpKind::dispatch).outputs[0]).shape[0] = sized(Symbol::tokens); },
       "another shape"},
      {"OffsetsWithoutAnEnd", [&](Plan& p) { buffer(p, op(p, OpKind::dispatch).outputs[1]).shape[0] = fixed(5); },
       "another shape"},
      {"AnExpertMissing", [&](Plan& p) { op(p, OpKind::expert_linear).weights.pop_back(); }, "4 matrices"},
      {"ExpertsOutOfOrder",
       [&](Plan& p) {
         std::vector<WeightIndex>& weights = op(p, OpKind::expert_linear).weights;
         std::swap(weights[1], weights[2]);
       },
       "out of its order"},
      {"RowsOfHalfWeight", [&](Plan& p) { buffer(p, op(p, OpKind::combine).inputs[0]).type = DataType::bf16; },
       "float32"},
      {"PlacesOfOtherChoices", [&](Plan& p) { op(p, OpKind::combine).inputs[1] = op(p, OpKind::dispatch).outputs[1]; },
       "never used"},
  };
  for (const Breakage& breakage : each) {
    Plan broken = plan_of(mixtral_like(1));
    breakage.apply(broken);
    EXPECT_NE(refusal(broken).find(breakage.message), std::string::npos) << breakage.name << ": " << refusal(broken);
  }
  const Breakage of_fused[] = {
      {"NoGate", [&](Plan& p) { op(p, OpKind::expert_up).attributes.gated = false; }, "10 matrices"},
      {"NoWeights", [&](Plan& p) { op(p, OpKind::norm_route).outputs.pop_back(); }, "before it is defined"},
      {"NoResidual", [&](Plan& p) { op(p, OpKind::combine_residual).inputs.pop_back(); }, "inputs"},
  };
  for (const Breakage& breakage : of_fused) {
    Plan broken = deep_fusion(plan_of(mixtral_like(1)));
    breakage.apply(broken);
    EXPECT_NE(refusal(broken).find(breakage.message), std::string::npos) << breakage.name << ": " << refusal(broken);
  }
}

}  // namespace
}  // namespace lamella::testing
