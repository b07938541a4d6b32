// A forward pass as data: a flat list of ops over a table of buffers and a table of weights.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lamella/types.h"
#include "model/weights.h"
#include "plan/op.h"
#include "plan/symbol.h"

namespace lamella {

/// input: filled by the scheduler before the step. activation: defined by one op, read by later ones. state: outlives
/// the step (the KV cache). output: an activation that the caller reads after the step.
enum class BufferKind : std::uint8_t { input, activation, state, output };

struct Buffer {
  std::string name;
  BufferKind kind = BufferKind::activation;
  DataType type = DataType::f32;
  std::vector<Dim> shape;
};

/// The flat list that executors run, passes rewrite and the simulator prices. Passes are pure functions Plan -> Plan.
struct Plan {
  std::vector<Op> ops;
  std::vector<Buffer> buffers;
  std::vector<WeightDeclaration> weights;
  StepShape bounds;  // the largest step that this plan may run

  [[nodiscard]] const Buffer& buffer(BufferId id) const { return buffers.at(static_cast<std::size_t>(id)); }
  [[nodiscard]] const WeightDeclaration& weight(WeightIndex index) const {
    return weights.at(static_cast<std::size_t>(index));
  }
  /// The op's weight of that slot, or nullptr.
  [[nodiscard]] const WeightDeclaration* weight(const Op& op, Slot slot) const noexcept;
  /// The op's weight that is a matrix; for ops with exactly one.
  [[nodiscard]] const WeightDeclaration& matrix(const Op& op) const;
  /// The buffer of that name, or nullptr.
  [[nodiscard]] const Buffer* find(std::string_view name) const noexcept;
};

/// The input buffer with a KV group's block table: "block_tables" of group 0, "block_tables.1" of the next.
[[nodiscard]] std::string block_table_name(std::size_t group);
/// Whose table an input of that name is; nothing for other inputs.
[[nodiscard]] std::optional<std::size_t> block_table_group(std::string_view name) noexcept;

/// Elements and bytes of a buffer for a step of that shape. Errors: invalid_argument, naming the buffer, above 2^63.
[[nodiscard]] std::int64_t element_count(const Buffer& buffer, const StepShape& shape);
[[nodiscard]] std::int64_t byte_count(const Buffer& buffer, const StepShape& shape);

/// "[T, 576]" with symbols, or "[4, 576]" for a step.
[[nodiscard]] std::string shape_text(const Buffer& buffer);
[[nodiscard]] std::string shape_text(const Buffer& buffer, const StepShape& shape);

/// The plan as a table that a person can read, one op a line; tests compare it.
[[nodiscard]] std::string to_table(const Plan& plan);

/// Rebuilds the buffer table with only those buffers that ops name, inputs included; passes call it after removing ops.
[[nodiscard]] Plan without_unused_buffers(Plan plan);

}  // namespace lamella
