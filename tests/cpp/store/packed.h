// Matrices packed for tests, and read back through the layout's definition.
#pragma once

#include <vector>

#include "memory/panels.h"
#include "store/pack.h"
#include "store/quantise.h"

namespace lamella::testing {

/// A packed matrix with its memory.
struct OwnedMatrix {
  std::vector<std::byte> bytes;
  MatrixRoom room;

  OwnedMatrix(std::int64_t outputs, std::int64_t inputs, const WeightFormat& format)
      : bytes(static_cast<std::size_t>(PanelLayout(format, outputs, inputs).total_bytes())),
        room{.bytes = bytes, .outputs = outputs, .inputs = inputs, .format = format} {}
  OwnedMatrix(const OwnedMatrix&) = delete;
  OwnedMatrix& operator=(const OwnedMatrix&) = delete;

  [[nodiscard]] PackedMatrix packed() const {
    return {.data = bytes.data(), .outputs = room.outputs, .inputs = room.inputs, .format = room.format};
  }
  /// All numbers, row by row.
  [[nodiscard]] std::vector<float> unpacked() const { return unpack(packed()); }

  static std::vector<float> unpack(const PackedMatrix& matrix) {
    std::vector<float> values(static_cast<std::size_t>(matrix.outputs * matrix.inputs));
    for (std::int64_t row = 0; row < matrix.outputs; ++row)
      unpack_row(matrix, row, values.data() + row * matrix.inputs);
    return values;
  }
};

}  // namespace lamella::testing
