// Plans for tests.
#pragma once

#include "plan/build_plan.h"
#include "specs.h"

namespace lamella::testing {

inline PlanOptions plan_options(PlanOutput output = PlanOutput::logits) {
  return {.dtype = DataType::f32,
          .output = output,
          .kv_pool_blocks = 12,
          .bounds = {.tokens = 24, .sequences = 4, .rows = 4, .kv_blocks = 3}};
}

inline Plan plan_of(const ModelSpec& spec, PlanOutput output = PlanOutput::logits) {
  return build_plan(spec, plan_options(output));
}

}  // namespace lamella::testing
