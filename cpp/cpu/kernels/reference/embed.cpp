#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {

void embed(const EmbedArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    float* y = row_of(a.y, t, a.width);
    const float* token = row_of(a.token_table, a.token_ids[t], a.width);
    for (std::int64_t i = 0; i < a.width; ++i) y[i] = token[i];
    if (a.type_table != nullptr) {
      const float* type = row_of(a.type_table, a.token_types[t], a.width);
      for (std::int64_t i = 0; i < a.width; ++i) y[i] += type[i];
    }
    if (a.position_table != nullptr) {
      const float* position = row_of(a.position_table, std::int64_t{a.positions[t]} + a.position_offset, a.width);
      for (std::int64_t i = 0; i < a.width; ++i) y[i] += position[i];
    }
  }
}

}  // namespace lamella::cpu::reference
