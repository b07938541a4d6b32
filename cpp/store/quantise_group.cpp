#include "store/quantise_group.h"

#include <algorithm>
#include <array>

#include "store/float4.h"

namespace lamella {
namespace {

/// Codes q of a group for one candidate, as the sums that least squares needs.
struct Moments {
  float wq = 0.0F, qq = 0.0F;  // sums of value * q and q * q
  /// What the best scale for these codes, wq / qq, takes off the sum of squares.
  [[nodiscard]] float gain() const noexcept { return qq > 0.0F ? wq * wq / qq : 0.0F; }
  [[nodiscard]] float scale() const noexcept { return qq > 0.0F ? wq / qq : 0.0F; }
};

/// The codes that a candidate may use: [-zero, 15 - zero].
struct Range {
  Float4 low, high;
  explicit Range(std::int32_t zero) noexcept
      : low(broadcast(static_cast<float>(-zero))), high(broadcast(static_cast<float>(15 - zero))) {}
};

/// Moments of q = round(value * inverse) within two ranges at once: their chains of sums overlap, which takes two
/// thirds of the time of one after the other.
std::array<Moments, 2> moments(const GroupValues& group, float inverse, const Range& a, const Range& b) noexcept {
  const Float4 by = broadcast(inverse);
  std::array<Float4, 2> wq_a{}, qq_a{}, wq_b{}, qq_b{};
  for (std::int64_t i = 0; i < group.padded; i += 8) {
    for (std::size_t part = 0; part < 2; ++part) {
      const Float4 w = load4(group.values + i + static_cast<std::int64_t>(part) * 4), scaled = w * by;
      const Float4 q_a = nearest(clamp(scaled, a.low, a.high)), q_b = nearest(clamp(scaled, b.low, b.high));
      wq_a[part] += w * q_a;
      qq_a[part] += q_a * q_a;
      wq_b[part] += w * q_b;
      qq_b[part] += q_b * q_b;
    }
  }
  return {Moments{sum(wq_a[0] + wq_a[1]), sum(qq_a[0] + qq_a[1])},
          Moments{sum(wq_b[0] + wq_b[1]), sum(qq_b[0] + qq_b[1])}};
}

/// Squared error of a finished fit.
float error_of(const GroupValues& group, const GroupFit& fit) noexcept {
  const float inverse = fit.scale == 0.0F ? 0.0F : 1.0F / fit.scale;
  const auto zero = static_cast<float>(fit.zero);
  float error = 0.0F;
  for (std::int64_t i = 0; i < group.count; ++i) {
    const float q = nearest(std::clamp((group.values[i] - fit.minimum) * inverse, -zero, 15.0F - zero));
    const float difference = group.values[i] - (q * fit.scale + fit.minimum);
    error += difference * difference;
  }
  return error;
}

/// Rounds the scale to fp16. Where fp16 is subnormal its steps are as large as the scale: the neighbours are tried too.
GroupFit rounded(const GroupValues& group, GroupFit fit) noexcept {
  const std::uint16_t bits = f16_from_f32(fit.scale);
  fit.scale = f32_from_f16(bits);
  if ((bits & 0x7c00U) != 0) return fit;
  GroupFit best = fit;
  for (const int step : {-1, 1}) {
    if ((bits & 0x7fffU) == 0 && step < 0) continue;
    GroupFit other = fit;
    other.scale = f32_from_f16(static_cast<std::uint16_t>(bits + step));
    if (error_of(group, other) < error_of(group, best)) best = other;
  }
  return best;
}

struct Candidate {
  Moments moments;
  std::int32_t zero = 8;
};

void consider(const GroupValues& group, float inverse, std::int32_t zero_a, std::int32_t zero_b,
              Candidate& best) noexcept {
  const std::array<Moments, 2> found = moments(group, inverse, Range(zero_a), Range(zero_b));
  if (found[0].gain() > best.moments.gain()) best = {found[0], zero_a};
  if (found[1].gain() > best.moments.gain()) best = {found[1], zero_b};
}

/// Codes once more with the best candidate's own scale, then the scale that fits these best.
GroupFit refitted(const GroupValues& group, const Candidate& best) noexcept {
  const float scale = best.moments.scale();
  if (scale == 0.0F) return {.zero = best.zero};
  const Range range(best.zero);
  return rounded(group, {.scale = moments(group, 1.0F / scale, range, range)[0].scale(), .zero = best.zero});
}

}  // namespace

Ends ends_of(const GroupValues& group) noexcept {
  Float4 low{}, high{};
  for (std::int64_t i = 0; i < group.padded; i += 4) {
    const Float4 v = load4(group.values + i);
    low = least(low, v);
    high = largest(high, v);
  }
  // Adding 0 makes a plain zero of -0, which would become a scale of -0.
  return {std::min({low[0], low[1], low[2], low[3]}) + 0.0F, std::max({high[0], high[1], high[2], high[3]}) + 0.0F};
}

GroupFit search_symmetric(const GroupValues& group, const Ends& ends) noexcept {
  // What the largest magnitude is mapped to. Measured over Gaussian, Student's t and Laplace groups of 32: ten steps
  // from 5.5 to 9 are within 0.1 % of the error that 200 steps from 4.5 to 12 reach.
  constexpr float first = 5.5F, last = 9.0F;
  constexpr int steps = 10;
  Candidate best;
  for (int i = 0; i < steps; ++i) {
    // Codes from -8 to 7 and, which is the same with a negative scale, from -7 to 8.
    const float step = first + (last - first) / (steps - 1) * static_cast<float>(i);
    consider(group, step / ends.largest(), 8, 7, best);
  }
  const GroupFit fit = refitted(group, best);
  return {.scale = best.zero == 8 || fit.scale == 0.0F ? fit.scale : -fit.scale, .zero = 8};
}

GroupFit search_zero(const GroupValues& group, const Ends& ends) noexcept {
  constexpr int steps = 8;
  const float range = ends.high - ends.low;
  Candidate best;
  for (int i = 0; i < steps; ++i) {  // the range shrinks to 65 %, around zeros beside one another
    const float inverse = 15.0F / (range * (1.0F - 0.05F * static_cast<float>(i)));
    // Half of what the range loses is lost at its lower end.
    const float zero = std::clamp(0.5F * (15.0F - inverse * (ends.low + ends.high)), 0.0F, 14.0F);
    const auto below = static_cast<std::int32_t>(zero);
    consider(group, inverse, below, below + 1, best);
  }
  return refitted(group, best);
}

// ---- groups with a minimum ---------------------------------------------------------------------------------------

namespace {

/// Sums over a group's values, less `origin`, and their codes.
struct Line {
  float origin = 0.0F, n = 0.0F, w = 0.0F, q = 0.0F, wq = 0.0F, qq = 0.0F;

  [[nodiscard]] float spread() const noexcept { return n * qq - q * q; }
  [[nodiscard]] float slope() const noexcept { return spread() > 0.0F ? (n * wq - w * q) / spread() : 0.0F; }
  [[nodiscard]] float start() const noexcept { return origin + (w - slope() * q) / n; }
  /// What the best line takes off the sum of squares around the mean.
  [[nodiscard]] float gain() const noexcept { return slope() * (n * wq - w * q); }
};

Line line_of(const GroupValues& group, float origin, float inverse) noexcept {
  const Float4 from = broadcast(origin), by = broadcast(inverse), least_code{}, most_code = broadcast(15.0F);
  Float4 w{}, q{}, wq{}, qq{};
  std::int64_t i = 0;
  for (; i + 4 <= group.count; i += 4) {
    const Float4 value = load4(group.values + i) - from;
    const Float4 code = nearest(clamp(value * by, least_code, most_code));
    w += value;
    q += code;
    wq += value * code;
    qq += code * code;
  }
  Line line{origin, static_cast<float>(group.count), sum(w), sum(q), sum(wq), sum(qq)};
  for (; i < group.count; ++i) {
    const float value = group.values[i] - origin;
    const float code = nearest(std::clamp(value * inverse, 0.0F, 15.0F));
    line.w += value;
    line.q += code;
    line.wq += value * code;
    line.qq += code * code;
  }
  return line;
}

}  // namespace

GroupFit search_minimum(const GroupValues& group, float low, float high) noexcept {
  constexpr int steps = 8;
  Line best;
  for (int i = 0; i < steps; ++i) {  // the range shrinks to 72 % around its middle
    const float cut = 0.02F * static_cast<float>(i) * (high - low);
    const Line line = line_of(group, low + cut, 15.0F / (high - low - 2.0F * cut));
    if (i == 0 || line.gain() > best.gain()) best = line;
  }
  for (int i = 0; i < 2 && best.slope() > 0.0F; ++i) best = line_of(group, best.start(), 1.0F / best.slope());
  const float start = std::clamp(best.start(), -largest_f16, largest_f16);  // the line may begin beyond its numbers
  return rounded(group, {.scale = best.slope(), .minimum = rounded_to_f16(start)});
}

void code_group(const GroupValues& group, const GroupFit& fit, std::int32_t levels, std::uint8_t* codes) noexcept {
  const float inverse = fit.scale == 0.0F ? 0.0F : 1.0F / fit.scale;
  const auto zero = static_cast<float>(fit.zero);
  const Float4 minimum = broadcast(fit.minimum), by = broadcast(inverse), base = broadcast(zero);
  const Float4 low = broadcast(-zero), high = broadcast(static_cast<float>(levels) - zero);
  for (std::int64_t i = 0; i < group.padded; i += 16) {
    std::array<std::uint8_t, 16> sixteen;
    for (std::size_t part = 0; part < 16; part += 4) {
      const Float4 value = (load4(group.values + i + static_cast<std::int64_t>(part)) - minimum) * by;
      const Int4 code = __builtin_convertvector(nearest(clamp(value, low, high)) + base, Int4);
      for (std::size_t lane = 0; lane < 4; ++lane) sixteen[part + lane] = static_cast<std::uint8_t>(code[lane]);
    }
    std::copy_n(sixteen.begin(), std::min<std::int64_t>(16, group.count - i), codes + i);
  }
}

}  // namespace lamella
