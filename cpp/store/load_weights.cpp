#include "store/load_weights.h"

#include <atomic>
#include <deque>
#include <optional>

#include "store/load_meter.h"
#include "store/pieces.h"

namespace lamella {

void load_weights(RankWeights ranks, const LoadRecipe& recipe, const io::TensorTable& tensors, io::Reader& reader,
                  ThreadTeam& team, const LoadProgress& progress) {
  struct Task {
    std::size_t rank, piece;
  };
  std::deque<PieceList> lists;  // a rank's each; they stay where they are
  std::vector<Task> tasks;
  std::uint64_t total = 0;
  const auto stored_bytes = [](const PieceList& pieces, const Piece& piece) {
    return static_cast<std::uint64_t>(pieces.source(piece).bytes_of_rows(piece.end - piece.begin));
  };
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const PieceList& pieces = lists.emplace_back(ranks[rank]->declarations(), recipe, tensors);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      tasks.push_back({rank, i});
      total += stored_bytes(pieces, pieces[i]);
    }
  }

  std::atomic<std::size_t> next{0};
  LoadMeter meter(total, progress);
  team.run([&](int) {
    std::optional<PiecePacker> packer;
    std::size_t packs_for = ranks.size();
    for (std::size_t i = next.fetch_add(1); i < tasks.size() && !meter.ended(); i = next.fetch_add(1)) {
      const auto& [rank, index] = tasks[i];
      const Piece piece = lists[rank][index];
      const ResidentWeights& weights = *ranks[rank];
      try {
        if (packs_for != rank) packer.emplace(lists[rank], tensors, reader);
        packs_for = rank;
        packer->pack(piece, weights.bytes(weights.declarations()[piece.weight].id).subspan(piece.offset, piece.bytes));
        meter.add(stored_bytes(lists[rank], piece));
      } catch (...) {
        meter.end();
        throw;
      }
    }
  });
  for (const std::shared_ptr<const io::File>& file : tensors.files) file->verify_unchanged();
}

}  // namespace lamella
