// From scores to weights: the exponentials of one query over a part of its context, in the form that values are
// multiplied with. Scores come in units of log2 e, so that a weight is 2^(score - largest).
#pragma once

#include "cpu/kernels/vector/attention_tile.h"
#include "cpu/kernels/vector/functions.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

constexpr float log2_e = 1.44269504F;

/// 2^x for x up to 0, relative error 1e-7, or 3e-6 where that is enough (coefficients: Lawson's iteration on [-1/2,
/// 1/2], rounded to fp32). Below -126 it stays 2^-126, which no sum of weights notices beside the largest, 1. NaN stays
/// NaN.
template <bool RoughIsEnough = false>
LAMELLA_INLINE F32 power_of_two(F32 x) {
  // 1.5 * 2^23 + 127: adding it rounds to an integer that stands in the low mantissa bits as an exponent.
  constexpr float round_magic = 12583039.0F;
  const F32 clamped = x < -126.0F ? splat(-126.0F) : x;
  const F32 shifted = clamped + round_magic;
  const F32 r = clamped - (shifted - round_magic);
  const F32 scale = (F32)((U32)shifted << 23);
  if constexpr (RoughIsEnough)
    return scale * polynomial(r, {9.570104e-3F, 5.5917904e-2F, 2.4024746e-1F, 6.931218e-1F, 0.9999993F});
  return scale *
         polynomial(r, {1.5345823e-4F, 1.3399936e-3F, 9.618489e-3F, 5.5503286e-2F, 2.4022646e-1F, 6.931472e-1F, 1.0F});
}

/// The largest of a query's scores and the sum of its weights, and so of the values so weighted.
struct Running {
  float largest, sum;
};

/// Positions of a part, from its beginning: a query's own [begin, end), and [first, last), whole blocks around them.
struct PartSpan {
  std::int64_t begin, end, first, last;
};

/// `v`, which stands at `i`, in the lanes of the span's own positions, and `other` in the rest.
LAMELLA_INLINE F32 own_lanes(F32 v, std::int64_t i, const PartSpan& span, F32 other) {
  I32 index;
  for (int lane = 0; lane < lanes; ++lane) index[lane] = lane;
  index += static_cast<std::int32_t>(i);
  return (index >= static_cast<std::int32_t>(span.begin)) & (index < static_cast<std::int32_t>(span.end)) ? v : other;
}
LAMELLA_INLINE bool is_inside(std::int64_t i, std::int64_t count, const PartSpan& span) {
  return i >= span.begin && i + count <= span.end;
}

/// The weight of the scores at `i`; 0 for positions that are not the query's own, whatever scores they have.
template <typename Product>
LAMELLA_INLINE F32 weights_at(const float* scores, std::int64_t i, const PartSpan& span, float largest) {
  const F32 weight = power_of_two < Product::rounds_weights || Product::digits == 2 > (load(scores + i) - largest);
  return is_inside(i, lanes, span) ? weight : own_lanes(weight, i, span, F32{});
}

/// Lines that memory can bring while nothing is read: those of the planes from `plane` to `end`.
struct LineFetch {
  const std::byte *const *plane, *const *end;
  std::int64_t plane_lines, line = 0;

  /// Asks for two of them. Measured while decoding from DRAM: 4 to 6 % for two a vector of weights, no more for four.
  LAMELLA_INLINE void fetch() {
    for (int i = 0; i < 2 && plane < end; ++i) {
      __builtin_prefetch(*plane + line * 64, 0, 2);
      if (++line < plane_lines) continue;
      line = 0;
      ++plane;
    }
  }
};

/// Two vectors of scores are read before the one of pairs is written in front of them.
template <typename Product>
LAMELLA_INLINE F32 weigh_in_pairs(float* scores, const PartSpan& span, float largest, LineFetch& lines) {
  constexpr std::int64_t step = std::int64_t{2} * lanes;
  F32 sum = {};
  for (std::int64_t i = span.first / step * step; i < span.last; i += step) {
    const auto pairs = Product::round(weights_at<Product>(scores, i, span, largest),
                                      weights_at<Product>(scores, i + lanes, span, largest));
    sum = Product::add_rounded(sum, pairs);
    lines.fetch();
    lines.fetch();
    __builtin_memcpy(scores + i / 2, &pairs, sizeof pairs);
  }
  return sum;
}

/// Weights times the scales of their values, in two digits; the sum is of the weights alone.
LAMELLA_INLINE F32 weigh_in_digits(float* scores, const PartSpan& span, float largest, const PlaneStream& stream,
                                   LineFetch& lines, DigitRow& digits) {
  alignas(64) float scaled[part_tokens];
  F32 sum = {};
  Magnitudes magnitudes;
  for (std::int64_t i = span.first; i < span.last; i += lanes) {
    const F32 weight = weights_at<Codes>(scores, i, span, largest);
    sum += weight;
    const std::int64_t at = i - span.first;
    const F32 product =
        weight * load(stream.value_scales(static_cast<int>(at / kv_block_tokens)) + at % kv_block_tokens);
    // Scales of slots that are not the query's own may be no numbers.
    const F32 own = is_inside(i, lanes, span) ? product : own_lanes(product, i, span, F32{});
    magnitudes.meet(own);
    store(scaled + at, own);
    lines.fetch();
  }
  auto* forms = reinterpret_cast<Codes::Form*>(scores) + span.first / Codes::word * Codes::word_forms;
  digits = make_digits(scaled, span.last - span.first, {magnitudes, most_in_digits}, forms, weight_row<Codes>);
  return sum;
}

/// Puts the weights of a part in the place of its scores, as Product multiplies them. Lanes are positions: what a query
/// gets does not depend on where its company begins and ends.
template <typename Product>
[[gnu::noinline]] Running weigh_part(float* scores, const PartSpan& span, const PlaneStream& stream, LineFetch& lines,
                                     DigitRow& digits) {
  const F32 lowest = splat(-__builtin_inff());
  F32 tops = lowest;
  for (std::int64_t i = span.first; i < span.last; i += lanes) {
    const F32 score = load(scores + i);
    tops = larger_lanes(is_inside(i, lanes, span) ? score : own_lanes(score, i, span, lowest), tops);
  }
  const float largest = max_lanes(tops);
  F32 sum = {};
  if constexpr (Product::digits == 2) {
    sum = weigh_in_digits(scores, span, largest, stream, lines, digits);
  } else if constexpr (Product::rounds_weights) {
    sum = weigh_in_pairs<Product>(scores, span, largest, lines);
  } else {
    for (std::int64_t i = span.first; i < span.last; i += lanes) {
      const F32 weight = weights_at<Product>(scores, i, span, largest);
      sum += weight;
      lines.fetch();
      store(scores + i, weight);
    }
  }
  return {largest, sum_lanes(sum)};
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
