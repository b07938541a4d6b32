#include "store/random_weights.h"

#include <algorithm>

#include "base/counter_random.h"
#include "store/pack.h"
#include "store/quantise.h"

namespace lamella {
namespace {

/// Standard deviation of random matrices: GPT-2's initialiser, which keeps activations of deep shapes in range.
constexpr float random_deviation = 0.02F;

bool is_norm_scale(Slot slot) noexcept {
  return slot == Slot::embedding_norm || slot == Slot::attention_norm || slot == Slot::mlp_norm ||
         slot == Slot::final_norm || slot == Slot::query_norm || slot == Slot::key_norm;
}

/// The tile of 16 rows that begins at `first`.
void fill_tile(const WeightDeclaration& weight, const MatrixRoom& room, std::int64_t first, std::uint64_t key,
               const NormalNumbers& normal, std::vector<float>& floats, CodedRows& codes) {
  const std::int64_t rows = std::min(tile_outputs, weight.rows - first);
  floats.resize(static_cast<std::size_t>(rows * weight.columns));
  for (std::int64_t row = 0; row < rows; ++row)
    normal.fill(std::span(floats).subspan(static_cast<std::size_t>(row * weight.columns),
                                          static_cast<std::size_t>(weight.columns)),
                random_deviation, key, static_cast<std::uint64_t>(first + row));
  if (!is_quantised(weight.format)) return pack_floats(room, first, floats);
  quantise_rows(floats, rows, weight.columns, weight.format, Rounding::nearest, codes);
  pack_codes(room, first, codes);
}

}  // namespace

void fill_random_weights(ResidentWeights& weights, std::uint64_t seed, ThreadTeam& team) {
  const std::span<const WeightDeclaration> declarations = weights.declarations();
  const NormalNumbers normal;
  team.run([&](int index) {
    std::vector<float> floats;
    CodedRows codes;
    std::int64_t tile = 0;  // of all matrices, dealt in turn
    for (std::size_t w = 0; w < declarations.size(); ++w) {
      const WeightDeclaration& weight = declarations[w];
      const std::span<std::byte> bytes = weights.bytes(weight.id);
      if (is_vector(weight.id.slot)) {
        auto* values = reinterpret_cast<float*>(bytes.data());
        if (index == 0) std::fill_n(values, weight.columns, is_norm_scale(weight.id.slot) ? 1.0F : 0.0F);
        continue;
      }
      const MatrixRoom room{.bytes = bytes, .outputs = weight.rows, .inputs = weight.columns, .format = weight.format};
      for (std::int64_t first = 0; first < weight.rows; first += tile_outputs, ++tile)
        if (tile % team.size() == index) fill_tile(weight, room, first, seed + w, normal, floats, codes);
    }
  });
}

}  // namespace lamella
