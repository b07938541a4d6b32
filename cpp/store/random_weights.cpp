#include "store/random_weights.h"

#include <algorithm>

#include "base/counter_random.h"
#include "memory/matrix_part.h"
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

/// Of a weight's own numbers, whichever ranks have parts of it.
std::uint64_t key_of(const WeightId& id, std::uint64_t seed) noexcept {
  const std::uint64_t layer = static_cast<std::uint64_t>(id.layer) + 1,
                      expert = static_cast<std::uint64_t>(id.expert) + 1;
  const auto drawn = philox(seed, layer, expert << 8U | static_cast<std::uint64_t>(id.slot));
  return std::uint64_t{drawn[0]} << 32 | drawn[1];
}

/// Fills matrices some rows at a time; one a thread.
class RandomRows {
 public:
  RandomRows(const NormalNumbers& normal, std::uint64_t seed) : normal_(normal), seed_(seed) {}

  /// A tile of the matrix: rows [first, first + 16), or up to the last.
  void fill_tile(const WeightDeclaration& weight, std::span<std::byte> room, std::int64_t first) {
    pack_rows({.bytes = room, .outputs = weight.rows, .inputs = weight.columns, .format = weight.format}, first,
              weight.id, {first, std::min(first + tile_outputs, weight.rows)});
  }

  /// The outputs from `first_output` on of a part of the matrix, which are `rows` of the whole, at most 16.
  void fill_part(const WeightDeclaration& weight, std::span<std::byte> room, const ShardRange& rows,
                 std::int64_t first_output) {
    const std::int64_t inputs = weight.part.whole_inputs;
    whole_rows_.assign(static_cast<std::size_t>(PanelLayout(weight.format, rows.size(), inputs).total_bytes()),
                       std::byte{});
    pack_rows({.bytes = whole_rows_, .outputs = rows.size(), .inputs = inputs, .format = weight.format}, 0, weight.id,
              rows);
    copy_outputs({{whole_rows_.data(), rows.size(), inputs, weight.format}, {0, rows.size()}, weight.part.inputs.begin},
                 room, PanelLayout(weight.format, weight.rows, weight.columns), first_output);
  }

 private:
  /// Rows of the model's matrix, drawn and packed to the room's rows from `first` on.
  void pack_rows(const MatrixRoom& room, std::int64_t first, const WeightId& id, const ShardRange& rows) {
    const std::uint64_t key = key_of(id, seed_);
    const auto length = static_cast<std::size_t>(room.inputs);
    floats_.resize(static_cast<std::size_t>(rows.size()) * length);
    for (std::int64_t row = rows.begin; row < rows.end; ++row)
      normal_.fill(std::span(floats_).subspan(static_cast<std::size_t>(row - rows.begin) * length, length),
                   random_deviation, key, static_cast<std::uint64_t>(row));
    if (!is_quantised(room.format)) return pack_floats(room, first, floats_);
    quantise_rows(floats_, rows.size(), room.inputs, room.format, Rounding::nearest, codes_);
    pack_codes(room, first, codes_);
  }

  const NormalNumbers& normal_;
  std::uint64_t seed_;
  std::vector<float> floats_;
  CodedRows codes_;
  std::vector<std::byte> whole_rows_;
};

}  // namespace

void fill_random_weights(RankWeights ranks, std::uint64_t seed, ThreadTeam& team) {
  const NormalNumbers normal;
  team.run([&](int index) {
    RandomRows rows(normal, seed);
    std::int64_t task = 0;  // of all matrices, dealt in turn
    const auto is_mine = [&] { return task++ % team.size() == index; };
    for (const ResidentWeights* weights : ranks) {
      for (const WeightDeclaration& weight : weights->declarations()) {
        const std::span<std::byte> room = weights->bytes(weight.id);
        if (is_vector(weight.id.slot)) {
          auto* values = reinterpret_cast<float*>(room.data());
          if (index == 0) std::fill_n(values, weight.columns, is_norm_scale(weight.id.slot) ? 1.0F : 0.0F);
        } else if (!weight.part) {
          for (std::int64_t first = 0; first < weight.rows; first += tile_outputs)
            if (is_mine()) rows.fill_tile(weight, room, first);
        } else {
          std::int64_t output = 0;
          for (const ShardRange& run : weight.part.outputs) {
            for (std::int64_t first = run.begin; first < run.end; first += tile_outputs) {
              const std::int64_t end = std::min(first + tile_outputs, run.end);
              if (is_mine()) rows.fill_part(weight, room, {first, end}, output);
              output += end - first;
            }
          }
        }
      }
    }
  });
}

}  // namespace lamella
