// A packed store's metadata: a StoreHeader as JSON and back.
#pragma once

#include <string>
#include <string_view>

#include "io/containers/store.h"

namespace lamella::io {

/// One JSON object, a line for each segment and weight. Its length does not depend on checksums and digest. Errors:
/// invalid_argument where `source` breaks its limits.
[[nodiscard]] std::string store_metadata(const StoreHeader& header, std::string_view digest);

/// What the text says: model and formats valid, names and numbers in range, every field there and none besides; whether
/// they agree with one another is check_layout's business, and the digest's. `offset` is where the text begins in the
/// file. Errors: as parse_store_header's.
[[nodiscard]] StoreHeader parse_store_metadata(std::string_view text, std::string_view file, std::size_t offset);

/// {"element":"i4","group":32,"scale":"f16","offset":"none","input":"dtype"}
[[nodiscard]] std::string to_json(const WeightFormat& format);

}  // namespace lamella::io
