// From the C interface's structs to requests.
#pragma once

#include "lamella/c.h"
#include "lamella/request.h"

namespace lamella {

/// A copy of what the request points to. Errors: invalid_argument for a NULL list with items, and as taken().
[[nodiscard]] Request request_from(const lamella_request& request);

}  // namespace lamella
