// Rows of a quantised matrix between the checkpoint and the panels: codes, scales and offsets, still row by row.
#pragma once

#include <cstdint>
#include <vector>

#include "base/scratch.h"
#include "lamella/weight_format.h"

namespace lamella {

/// `rows` rows of `inputs` codes each, in `groups` groups. Kept by whoever loads from one block of rows to the next,
/// so that memory is taken once.
struct CodedRows {
  std::int64_t rows = 0, inputs = 0, groups = 0;
  std::vector<std::uint8_t> codes;     // [rows][inputs] as the layout stores them: unsigned, code_bias() added
  std::vector<std::uint32_t> scales;   // [rows][groups]: the bits of an fp32 or fp16
  std::vector<std::uint16_t> offsets;  // [rows][groups]: the bits of an fp16 minimum, or the integer zero

  void resize(const WeightFormat& format, std::int64_t row_count, std::int64_t row_inputs) {
    rows = row_count;
    inputs = row_inputs;
    groups = format.group == 0 ? 1 : (inputs + format.group - 1) / format.group;
    resize_scratch(codes, static_cast<std::size_t>(rows * inputs));
    resize_scratch(scales, static_cast<std::size_t>(rows * groups));
    resize_scratch(offsets, format.offset == Offset::none ? 0 : scales.size());
  }
};

}  // namespace lamella
