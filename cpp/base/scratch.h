// Room that is used again and again, for contents of many sizes.
#pragma once

#include <cstddef>
#include <vector>

namespace lamella {

/// Makes `scratch` hold `size` elements; what it held is lost or stays. Where it must grow it frees the old room before
/// it takes the new, and takes no more than is asked for: so its memory is the largest size so far, in whatever order
/// the sizes came, where std::vector's own growth holds up to three times that for a moment.
template <typename T>
void resize_scratch(std::vector<T>& scratch, std::size_t size) {
  if (scratch.capacity() < size) {
    scratch = std::vector<T>();
    scratch.reserve(size);
  }
  scratch.resize(size);
}

}  // namespace lamella
