#include "store/load_weights.h"

#include <atomic>

#include "store/load_meter.h"
#include "store/pieces.h"

namespace lamella {

void load_weights(ResidentWeights& weights, const LoadRecipe& recipe, const io::TensorTable& tensors,
                  io::Reader& reader, ThreadTeam& team, const LoadProgress& progress) {
  const PieceList pieces(weights.declarations(), recipe, tensors);
  std::vector<std::span<std::byte>> rooms;
  for (const WeightDeclaration& weight : weights.declarations()) rooms.push_back(weights.bytes(weight.id));
  const auto stored_bytes = [&](const Piece& piece) {
    return static_cast<std::uint64_t>(pieces.source(piece).bytes_of_rows(piece.end - piece.begin));
  };
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) total += stored_bytes(pieces[i]);

  std::atomic<std::size_t> next{0};
  LoadMeter meter(total, progress);
  team.run([&](int) {
    PiecePacker packer(pieces, tensors, reader);
    for (std::size_t i = next.fetch_add(1); i < pieces.size() && !meter.ended(); i = next.fetch_add(1)) {
      const Piece piece = pieces[i];
      try {
        packer.pack(piece, rooms[piece.weight].subspan(piece.offset, piece.bytes));
        meter.add(stored_bytes(piece));
      } catch (...) {
        meter.end();
        throw;
      }
    }
  });
  for (const std::shared_ptr<const io::File>& file : tensors.files) file->verify_unchanged();
}

}  // namespace lamella
