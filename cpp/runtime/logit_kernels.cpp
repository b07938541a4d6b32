#include "runtime/logit_kernels.h"

#include <array>
#include <limits>

#include "runtime/token_weights.h"

namespace lamella {
namespace {

using Logits = std::array<float, logit_block>;
using Weights = std::array<double, logit_block>;

/// Halves a block again and again: value i meets value i + half, the result in place i.
template <typename Block, typename Meet>
auto fold(Block block, const Meet& meet) {
  for (std::size_t half = logit_block / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) block[i] = meet(block[i], block[i + half]);
  return block[0];
}

double sum_of(const Weights& weights) {
  return fold(weights, [](double a, double b) { return a + b; });
}

bool find_maxima(const float* logits, std::size_t count, float* block_max) {
  bool sound = true;
  for (std::size_t b = 0; b < count; ++b) {
    Logits block;
    for (std::size_t i = 0; i < logit_block; ++i) {
      block[i] = logits[b * logit_block + i];
      sound = sound && block[i] < std::numeric_limits<float>::infinity();
    }
    block_max[b] = fold(block, [](float x, float y) { return x < y ? y : x; });
  }
  return sound;
}

void weigh(const LogitBlocks& blocks, const LogitWeight& weight, double* weights, double* sums) {
  for (std::size_t b = 0; b < blocks.count; ++b) {
    sums[b] = 0.0;
    if (blocks.block_max[b] < weight.least) continue;
    Weights block;
    for (std::size_t i = 0; i < logit_block; ++i) {
      const float logit = blocks.logits[b * logit_block + i];
      const double x = (static_cast<double>(logit) - static_cast<double>(weight.best)) * weight.scale;
      block[i] = logit < weight.least ? 0.0 : exp_of_negative(x);
      if (weights != nullptr) weights[b * logit_block + i] = block[i];
    }
    sums[b] = sum_of(block);
  }
}

float find_lowest(const LogitBlocks& blocks, float least, float start) {
  for (std::size_t b = 0; b < blocks.count; ++b) {
    if (blocks.block_max[b] < least) continue;
    for (std::size_t i = 0; i < logit_block; ++i) {
      const float logit = blocks.logits[b * logit_block + i];
      if (logit >= least && logit < start) start = logit;
    }
  }
  return start;
}

void find_places(const LogitBlocks& blocks, float least, const LogitPlaces& place, std::uint16_t* places) {
  for (std::size_t b = 0; b < blocks.count; ++b) {
    if (blocks.block_max[b] < least) continue;
    for (std::size_t i = b * logit_block; i < (b + 1) * logit_block; ++i) {
      const float distance = (place.best - blocks.logits[i]) * place.per_logit;
      places[i] = distance < static_cast<float>(place.last) ? static_cast<std::uint16_t>(distance) : place.last;
    }
  }
}

}  // namespace

constinit const LogitKernels plain_logit_kernels = {
    .find_maxima = find_maxima, .weigh = weigh, .find_lowest = find_lowest, .find_places = find_places};

}  // namespace lamella
