#include "memory/matrix_part.h"

#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace lamella {
namespace {

/// One output of a packed matrix, word by word.
class PackedOutput {
 public:
  PackedOutput(const PanelLayout& layout, std::int64_t output)
      : layout_(layout), output_(output), stride_(layout.tiles_of(output / panel_outputs) * tile_outputs * 4) {}

  [[nodiscard]] std::int64_t stride() const noexcept { return stride_; }
  [[nodiscard]] std::int64_t word(std::int64_t group, std::int64_t word) const noexcept {
    return layout_.word_offset(output_, group, 0) + word * stride_;
  }
  [[nodiscard]] std::int64_t scale(std::int64_t group) const noexcept { return layout_.scale_offset(output_, group); }
  [[nodiscard]] std::int64_t offset(std::int64_t group) const noexcept { return layout_.offset_offset(output_, group); }

 private:
  const PanelLayout& layout_;
  std::int64_t output_, stride_;
};

std::uint32_t word_at(const std::byte* from) noexcept {
  std::uint32_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

/// `inputs` neighbouring inputs of one output, from number `first` of the group on; those behind them stay zero.
class GroupCopy {
 public:
  GroupCopy(std::int64_t word_inputs) : word_inputs_(word_inputs), bits_(32 / word_inputs) {}

  void operator()(const std::byte* from, std::int64_t from_stride, std::int64_t first, std::byte* to,
                  std::int64_t to_stride, std::int64_t inputs) const {
    if (first % word_inputs_ == 0) {
      from += first / word_inputs_ * from_stride;
      for (; inputs >= word_inputs_; inputs -= word_inputs_, from += from_stride, to += to_stride)
        std::memcpy(to, from, sizeof(std::uint32_t));
      first = 0;
    }
    for (std::int64_t i = 0; i < inputs; ++i) {
      const std::int64_t at = first + i;
      const std::uint32_t code =
          word_at(from + at / word_inputs_ * from_stride) >> bit_offset(word_inputs_, at % word_inputs_) &
          (bits_ == 32 ? ~0U : (1U << bits_) - 1U);
      std::byte* place = to + i / word_inputs_ * to_stride;
      const std::uint32_t word = word_at(place) | code << bit_offset(word_inputs_, i % word_inputs_);
      std::memcpy(place, &word, sizeof word);
    }
  }

 private:
  std::int64_t word_inputs_, bits_;
};

}  // namespace

void copy_outputs(const PartSource& source, std::span<std::byte> room, const PanelLayout& to,
                  std::int64_t first_output) {
  const PackedMatrix& whole = source.from;
  const PanelLayout from = whole.layout();
  const std::int64_t group = is_quantised(whole.format) ? whole.format.group : 0;
  check(!is_quantised(whole.format) || source.first_input == 0 || (group > 0 && source.first_input % group == 0),
        "input ", source.first_input, " in ", to_string(whole.format));
  const std::int64_t first_group = group == 0 ? 0 : source.first_input / group,
                     first_input = group == 0 ? source.first_input : 0;
  const GroupCopy copy(from.word_inputs);
  for (std::int64_t i = 0; i < source.outputs.size(); ++i) {
    const PackedOutput theirs(from, source.outputs.begin + i), own(to, first_output + i);
    for (std::int64_t g = 0; g < to.groups; ++g) {
      copy(whole.data + theirs.word(first_group + g, 0), theirs.stride(), first_input, room.data() + own.word(g, 0),
           own.stride(), to.inputs_of(g));
      std::memcpy(room.data() + own.scale(g), whole.data + theirs.scale(first_group + g),
                  static_cast<std::size_t>(to.scale_bytes));
      std::memcpy(room.data() + own.offset(g), whole.data + theirs.offset(first_group + g),
                  static_cast<std::size_t>(to.offset_bytes));
    }
  }
}

void copy_part(const PackedMatrix& whole, const WeightPart& part, std::span<std::byte> room) {
  check(part.whole_outputs == whole.outputs && part.whole_inputs == whole.inputs, "a part of ", part.whole_outputs,
        " x ", part.whole_inputs, " of a matrix of ", whole.outputs, " x ", whole.inputs);
  check(part.inputs.begin >= 0 && part.inputs.end <= whole.inputs &&
            can_cut_inputs(whole.format, whole.inputs, part.inputs),
        "inputs ", part.inputs.begin, " to ", part.inputs.end, " of ", whole.inputs, " in ", to_string(whole.format));
  std::int64_t outputs = 0;
  for (const ShardRange& run : part.outputs) {
    check(run.begin >= 0 && run.begin <= run.end && run.end <= whole.outputs, "outputs ", run.begin, " to ", run.end,
          " of ", whole.outputs);
    outputs += run.size();
  }
  const PanelLayout to(whole.format, outputs, part.inputs.size());
  check(static_cast<std::int64_t>(room.size()) == to.total_bytes(), "room of ", room.size(), " bytes for a part of ",
        to.total_bytes());
  std::int64_t output = 0;
  for (const ShardRange& run : part.outputs) {
    copy_outputs({whole, run, part.inputs.begin}, room, to, output);
    output += run.size();
  }
}

}  // namespace lamella
