// Where a packed store's segments and weights lie, given the model and the weights' formats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "io/containers/store.h"

namespace lamella::io {

/// The model's weights in the store's order: segment by segment, in each as declare_weights has them. `index` is the
/// weight's place in declare_weights' own order, which differs where a norm follows its layer.
struct PlacedWeight {
  WeightDeclaration declaration;
  std::uint32_t index = 0;
};
[[nodiscard]] std::vector<PlacedWeight> in_store_order(const ModelSpec& model);

/// The formats of the store's weights in the order of declare_weights(header.model).
[[nodiscard]] std::vector<WeightFormat> declared_formats(const StoreHeader& header);

/// Fills header.segments (without checksums), every weight's segment, offset and bytes, and file_bytes, from the
/// weights' ids, shapes and formats and from header_bytes. Errors: invalid_checkpoint where sizes overflow.
void lay_out(StoreHeader& header, std::span<const PlacedWeight> declared);

/// Throws unless the header says of itself what model, formats and header_bytes say of it: invalid_checkpoint naming
/// `file`, the weight or segment, and expected and found values.
void check_layout(const StoreHeader& header, std::string_view file);

/// Throws unless every byte of `padding`, which begins at byte `offset` of the file, is zero: invalid_checkpoint.
/// `where` ends "padding ...": "after the metadata".
void check_zeros(std::span<const std::byte> padding, std::uint64_t offset, std::string_view where,
                 std::string_view file);

}  // namespace lamella::io
