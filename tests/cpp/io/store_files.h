// Small packed stores for tests, whole or with one thing wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/containers/store.h"
#include "io/containers/store_prologue.h"
#include "memory/resident_weights.h"
#include "model/model_spec.h"

namespace lamella::test {

/// One layer, grouped heads, biases, tied head; widths off every grid.
[[nodiscard]] ModelSpec tiny_spec();

/// A format for every weight in declare_weights' order: `matrices` in turn, fp32 for vectors.
[[nodiscard]] std::vector<WeightFormat> formats_in_turn(const ModelSpec& spec,
                                                        const std::vector<WeightFormat>& matrices);

/// A whole store: planned, every weight filled with bytes that depend on `seed` and place, none of them 0, checksummed.
[[nodiscard]] std::string store_file(const ModelSpec& spec, const std::vector<WeightFormat>& matrices,
                                     std::uint64_t seed = 1);

/// A whole store of these weights, which are the model's.
[[nodiscard]] std::string store_of(const ModelSpec& spec, DataType dtype, const ResidentWeights& weights);

/// The metadata's text of such a file.
[[nodiscard]] std::string metadata_of(std::string_view file);

/// A header around that text, with right lengths and checksums.
[[nodiscard]] std::string sealed(std::string_view metadata, std::uint64_t file_bytes);

io::StoreHeader parse_store(std::string_view file);

}  // namespace lamella::test
