#include "memory/rotation.h"

namespace lamella {

void rotate_weights(std::span<float> row) noexcept {
  each_rotated_run(static_cast<std::int64_t>(row.size()),
                   [&](std::int64_t at, std::int64_t partner, std::int64_t count) {
                     float* __restrict first = row.data() + at, * __restrict second = row.data() + partner;
                     for (std::int64_t i = 0; i < count; ++i) {
                       const float a = 0.5F * first[i], b = 0.5F * second[i];
                       first[i] = a + b;
                       second[i] = a - b;
                     }
                   });
}

}  // namespace lamella
