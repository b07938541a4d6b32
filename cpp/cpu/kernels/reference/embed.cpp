#include <vector>

#include "cpu/kernels/reference/reference.h"

namespace lamella::cpu::reference {

/// Token, type and position rows, added in this order in fp32.
void embed(const EmbedArgs& a, const Worker& worker) {
  const Range mine = share(a.tokens, worker);
  std::vector<float> row(static_cast<std::size_t>(a.width));
  for (std::int64_t t = mine.begin; t < mine.end; ++t) {
    float* y = row_of(a.y, t, a.width);
    const auto add = [&](const PackedMatrix& table, std::int64_t index) {
      if (table.data == nullptr) return;
      unpack_row(table, index, row.data());
      for (std::int64_t i = 0; i < a.width; ++i) y[i] += row[static_cast<std::size_t>(i)];
    };
    unpack_row(a.token_table, a.token_ids[t], y);
    add(a.type_table, a.token_types[t]);
    add(a.position_table, std::int64_t{a.positions[t]} + a.position_offset);
  }
}

}  // namespace lamella::cpu::reference
