// The cores that the operating system lets a thread use.
#pragma once

namespace lamella {

/// How many cores the calling thread may use now: its affinity mask, which cpusets narrow too. At least 1. Takes less
/// than a microsecond, so that it can be asked again and again: masks change while programs run.
[[nodiscard]] int affine_cores() noexcept;

}  // namespace lamella
