// The rules that every plan obeys. Runs after build_plan and after every pass, in every build.
#pragma once

#include <span>

#include "plan/plan.h"

namespace lamella {

/// Checks that
///  - every buffer and weight index exists; inputs and states are never defined by an op; every activation and output is
///    defined exactly once, before its first use; every activation is used and every output defined;
///  - operands have the shapes that the op's kind asks for, symbols unified, and weights fit them;
///  - operands have the plan's element type (that of the embedding), fp32 where kernels write it, int32 for tables, and
///    fp32 for the output;
///  - a layer's attention reads a KV state that an op before it in the same layer has written;
///  - ops of one region of one layer stand side by side, and layers come in order.
/// Errors: internal (a broken pass is our bug), naming op number, kind, layer and buffer.
void verify(const Plan& plan);

/// Checks that the plans of all ranks of a group, in order, meet in the same collectives, one after the other, of the same
/// type and rows, and that each knows its own place in them. Errors: internal.
void verify_together(std::span<const Plan> ranks);

}  // namespace lamella
