// Sums and maxima over what several ranks bring.
#pragma once

#include <cstddef>
#include <span>

#include "comm/communicator.h"

namespace lamella::comm {

/// to[i] = sources[0][i] op sources[1][i] op ..., from the first source to the last; `to` may be one of them. Floats are
/// reduced in fp32 and rounded once, to the nearest even; int32 sums wrap. NaN anywhere gives NaN. Errors: internal for int8
/// and for no source.
void reduce(const Elements& to, std::span<const void* const> sources, Reduction reduction);

}  // namespace lamella::comm
