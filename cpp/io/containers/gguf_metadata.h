// GGUF's typed key-values.
#pragma once

#include <map>
#include <string>

#include "io/containers/gguf_cursor.h"
#include "io/tensor_table.h"

namespace lamella::io {

/// Reads the count of key-values and the key-values, all 13 value types. Keys are 1 to 1,024 bytes of UTF-8 without
/// NUL, each once, at most 65,536 of them; booleans are 0 or 1; arrays nest at most 64 deep.
[[nodiscard]] std::map<std::string, MetadataValue, std::less<>> read_gguf_metadata(GgufCursor& in);

}  // namespace lamella::io
