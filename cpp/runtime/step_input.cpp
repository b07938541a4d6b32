#include "runtime/step_input.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/check.h"
#include "plan/plan.h"

namespace lamella {
namespace {

constexpr std::int32_t layout_version = 2;
constexpr std::array<std::string_view, 7> part_names = {"token_ids", "positions",    "rope_lengths", "token_types",
                                                        "sequences", "block_tables", "row_indices"};

}  // namespace

StepInput::StepInput(std::int64_t tokens, std::int64_t sequences, std::int64_t rows, std::int64_t kv_blocks,
                     std::size_t kv_groups) {
  reset(tokens, sequences, rows, kv_blocks, kv_groups);
}

void StepInput::reset(std::int64_t tokens, std::int64_t sequences, std::int64_t rows, std::int64_t kv_blocks,
                      std::size_t kv_groups) {
  words_.clear();
  for (const std::int64_t size :
       {tokens, sequences, rows, kv_blocks, static_cast<std::int64_t>(kv_groups), std::int64_t{layout_version}})
    words_.push_back(static_cast<std::int32_t>(size));
  words_.resize(begin(parts));
}

std::size_t StepInput::begin(std::size_t part) const noexcept {
  const std::array<std::int64_t, parts> sizes = {tokens(),
                                                 tokens(),
                                                 tokens(),
                                                 tokens(),
                                                 2 * sequence_count(),
                                                 std::int64_t(kv_groups()) * sequence_count() * kv_blocks(),
                                                 rows()};
  std::size_t offset = header_words;
  for (std::size_t i = 0; i < part; ++i) offset += static_cast<std::size_t>(sizes[i]);
  return offset;
}

std::span<std::int32_t> StepInput::part(std::size_t index) noexcept {
  return std::span(words_).subspan(begin(index), begin(index + 1) - begin(index));
}

void StepInput::set_blocks(std::size_t group, std::size_t sequence, std::span<const std::int32_t> blocks) noexcept {
  const auto width = static_cast<std::size_t>(kv_blocks());
  const std::size_t row = group * static_cast<std::size_t>(sequence_count()) + sequence;
  const std::span<std::int32_t> table = block_tables().subspan(row * width, width);
  for (std::size_t i = 0; i < std::min(width, blocks.size()); ++i) table[i] = std::max(blocks[i], 0);
}

std::span<const std::int32_t> StepInput::named(std::string_view buffer) const {
  if (const std::optional<std::size_t> group = block_table_group(buffer); group && *group < kv_groups()) {
    const auto table = static_cast<std::size_t>(sequence_count() * kv_blocks());
    return std::span(words_).subspan(begin(5) + *group * table, table);
  }
  for (std::size_t i = 0; i < parts; ++i)
    if (part_names[i] == buffer) return std::span(words_).subspan(begin(i), begin(i + 1) - begin(i));
  throw Error(ErrorCode::internal, concat("no step input named ", buffer));
}

StepShape StepInput::shape() const {
  StepShape shape{.tokens = tokens(), .sequences = sequence_count(), .rows = rows(), .kv_blocks = kv_blocks()};
  const std::span<const std::int32_t> position = named("positions"), spans = named("sequences");
  for (std::size_t s = 0; s < static_cast<std::size_t>(sequence_count()); ++s) {
    const auto first = static_cast<std::size_t>(spans[2 * s]), count = static_cast<std::size_t>(spans[2 * s + 1]);
    for (std::size_t t = first; t < first + count; ++t) shape.attended += position[t] + 1;
    if (count > 0) shape.kv_tokens += position[first + count - 1] + 1;
  }
  return shape;
}

}  // namespace lamella
