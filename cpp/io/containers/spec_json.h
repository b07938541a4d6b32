// A ModelSpec as JSON and back: how a packed store carries its model to programs without Python.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "io/containers/json.h"
#include "model/model_spec.h"

namespace lamella {

/// One JSON object on one line; numbers in the shortest form that reads back to the same bits.
[[nodiscard]] std::string to_json(const ModelSpec& spec);

/// The same text handed to `out` piece by piece, without ever being whole: for checksums of specs that come from files,
/// whose text can be several times as long as the file's own.
void write_json(const ModelSpec& spec, const std::function<void(std::string_view)>& out);

/// The spec of such an object, checked by validate(). Errors: invalid_checkpoint naming the field for one that is
/// missing, unknown, of another type or outside its type's range, and whatever validate() throws.
[[nodiscard]] ModelSpec spec_from_json(io::json::Value object);

}  // namespace lamella
