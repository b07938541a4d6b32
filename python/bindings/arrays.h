// Numbers of the core as numpy arrays, without a copy.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace lamella {

/// An array that owns the values, with this shape. Errors: std::bad_alloc.
template <typename Number>
[[nodiscard]] nanobind::ndarray<nanobind::numpy, Number> to_numpy(std::vector<Number>&& values,
                                                                  std::vector<std::size_t> shape) {
  auto owned = std::make_unique<std::vector<Number>>(std::move(values));
  Number* data = owned->data();
  const nanobind::capsule owner(owned.release(),
                                [](void* pointer) noexcept { delete static_cast<std::vector<Number>*>(pointer); });
  return {data, shape.size(), shape.data(), owner};
}

}  // namespace lamella
