#include <algorithm>
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
    const std::int64_t own = std::int64_t{a.token_ids[t]} - a.first_token;
    if (own < 0 || own >= a.token_table.outputs) {
      std::fill_n(y, a.width, 0.0F);
      continue;
    }
    unpack_row(a.token_table, own, y);
    add(a.type_table, a.token_types[t]);
    add(a.position_table, std::int64_t{a.positions[t]} + a.position_offset);
  }
}

}  // namespace lamella::cpu::reference
