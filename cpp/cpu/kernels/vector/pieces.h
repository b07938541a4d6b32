// How the outputs of a matrix come to workers: a share each, from whose end those that are done early take.
//
// Workers that share a matrix evenly do not end evenly: one waits for memory longer, another is interrupted by its neighbours
// on the machine. Linears take up to 13 % less this way (bench/results/work-shares-zen4-2026-11.md). An output's bits do not
// depend on who computes it, nor on what with.
#pragma once

#include "cpu/kernels/vector/token_tile.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// The pieces of `units` that one worker gets of a matrix in a phase.
class Pieces {
 public:
  /// Pieces end at multiples of `grain` but at the ends of shares, and where little is left. A worker keeps to its share
  /// where there is nothing to mark what is taken in, where there are too many units for that, and where a phase has several
  /// tiles of tokens and goes over the outputs once for each.
  LAMELLA_INLINE Pieces(std::int64_t units, std::int64_t grain, const LinearTokens& tokens, const Worker& worker)
      : worker_(worker), units_(units), grain_(grain), own_(share(units, worker)), halves_(tokens.shared_inputs) {
    const bool once = tokens.shared_inputs || tokens.count <= token_tile;
    stealing_ = once && worker.shares != nullptr && worker.count > 1 && units <= WorkShare::most_units;
  }

  /// Whether there was one more piece.
  LAMELLA_INLINE bool next(Range& piece) {
    if (stealing_) return take(piece);
    piece = front_of(own_);
    own_.begin = piece.end;
    return piece.begin < piece.end;
  }

 private:
  [[gnu::noinline]] bool take(Range& piece) {
    for (; after_ < worker_.count; ++after_) {
      const int index = (worker_.index + after_) % worker_.count;
      WorkShare& share = worker_.shares[index];
      std::uint64_t found = __atomic_load_n(&share.state, __ATOMIC_RELAXED);
      for (;;) {
        const Range left = left_of(found, index);
        if (left.begin >= left.end) break;
        piece = after_ == 0 ? front_of(left) : back_of(left);
        const Range rest = after_ == 0 ? Range{piece.end, left.end} : Range{left.begin, piece.begin};
        if (__atomic_compare_exchange_n(&share.state, &found, WorkShare::state_of(worker_.round, rest.begin, rest.end),
                                        true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
          return true;
      }
    }
    return false;
  }
  /// A share of an earlier round is one that nobody has begun in this one.
  [[nodiscard]] LAMELLA_INLINE Range left_of(std::uint64_t state, int index) const {
    if (WorkShare::round_of(state) != worker_.round) return share(units_, index, worker_.count);
    return {WorkShare::begin_of(state), WorkShare::end_of(state)};
  }
  /// With many tokens a piece takes long, and the worker leaves others half of its last one (Zen 4, 32 tokens, matrices of
  /// 2048 x 2048 in int8: medians of 13.2 to 14.0 ms without, 12.9 to 13.6 with). With few tokens it makes no difference.
  [[nodiscard]] LAMELLA_INLINE Range front_of(const Range& left) const {
    if (stealing_ && halves_ && left.end - left.begin <= grain_)
      return {left.begin, left.begin + (left.end - left.begin + 1) / 2};
    const std::int64_t end = (left.begin / grain_ + 1) * grain_;
    return {left.begin, end < left.end ? end : left.end};
  }
  [[nodiscard]] LAMELLA_INLINE Range back_of(const Range& left) const {
    const std::int64_t count = left.end - left.begin;
    if (count >= 2 * grain_) return {(left.end - 1) / grain_ * grain_, left.end};
    return {left.end - (count + 1) / 2, left.end};
  }

  const Worker& worker_;
  std::int64_t units_, grain_;
  Range own_;  // what is left of it where nobody takes from it
  int after_ = 0;  // whose share pieces come from: the worker's own, then its followers'
  bool halves_, stealing_;
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
