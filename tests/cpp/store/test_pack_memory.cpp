// What packing and loading hold in memory beside the weights: so much a thread, however long the segments. Every
// allocation of this program counts.
#include <gtest/gtest.h>

#include "../io/checkpoint_files.h"
#include "base/scratch.h"
#include "counting_new.h"
#include "memory/resident_weights.h"
#include "packing.h"
#include "rank_weights.h"
#include "specs.h"
#include "store/load_weights.h"

namespace lamella::testing {
namespace {

constexpr std::size_t mebibyte = std::size_t{1} << 20;

std::size_t peak_of(const ModelSpec& spec, io::StorageType stored, Quantization quantization, DataType dtype,
                    int threads) {
  const test::TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", spec, 1, {stored});
  const Packing packing{
      .checkpoint = checkpoint, .file = folder.path() / "store", .quantization = quantization, .dtype = dtype};
  const HeapPeak peak;
  const PackReport report = packing.run(threads);
  const std::size_t bytes = peak.bytes();
  std::printf("  %s, %d threads: %.1f MiB for a store of %.1f MiB\n", spec.family.c_str(), threads,
              static_cast<double>(bytes) / mebibyte, static_cast<double>(report.file_bytes) / mebibyte);
  return bytes;
}

/// The same while weights are loaded into the room that they stay in.
std::size_t loading_peak_of(const ModelSpec& spec, io::StorageType stored, Quantization quantization, DataType dtype) {
  const test::TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", spec, 1, {stored});
  const Packing packing{.checkpoint = checkpoint, .file = {}, .quantization = quantization, .dtype = dtype};
  std::vector<WeightDeclaration> declared = declare_weights(spec);
  set_formats(declared, packing.formats());
  ResidentWeights weights(declared);
  io::PreadReader reader;
  ThreadTeam team(1);
  const HeapPeak peak;
  load_weights(only(weights), checkpoint.recipe(), checkpoint.tensors(), reader, team);
  const std::size_t bytes = peak.bytes();
  std::printf("  %s: %.1f MiB beside weights of %.1f MiB\n", spec.family.c_str(), static_cast<double>(bytes) / mebibyte,
              static_cast<double>(weights.total_bytes()) / mebibyte);
  return bytes;
}

struct Kind {
  ModelSpec spec;
  io::StorageType stored;
  Quantization quantization;
  DataType dtype;
};

/// A model of one layer whose matrices by columns are cut into several strips.
ModelSpec wide(ModelSpec spec) {
  spec.hidden = 1200;
  spec.layers.at(0).attention = {.heads = 40, .kv_heads = 40, .head_dim = 30, .scale = 0.2F};
  spec.layers.at(0).mlp.intermediate = 3000;
  return spec;
}

std::vector<Kind> kinds() {
  ModelSpec in_blocks = llama_like(1);
  in_blocks.hidden = 64;
  return {{llama_like(1), io::StorageType::bf16, Quantization::none, DataType::bf16},
          {in_blocks, io::StorageType::q4_0, Quantization::dequantize, DataType::f32},
          {neox_like(1), io::StorageType::f32, Quantization::int8, DataType::f32},
          {wide(gpt2_like(1)), io::StorageType::f32, Quantization::int8, DataType::f32}};
}

/// A small and a larger model of a kind.
ModelSpec sized(const Kind& kind, std::size_t size) {
  ModelSpec spec = kind.spec;
  if (spec.hidden < 1000) spec.vocab = size == 0 ? 60'000 : 200'000;  // one segment grows
  else spec.layers.resize(size == 0 ? 1 : 3, spec.layers[0]);  // there are more of them
  return spec;
}

TEST(PackMemory, DoesNotGrowWithTheModel) {
  for (const Kind& kind : kinds()) {
    std::size_t peak[2] = {};
    for (const std::size_t size : {0U, 1U}) {
      const ModelSpec spec = sized(kind, size);
      peak[size] = peak_of(spec, kind.stored, kind.quantization, kind.dtype, 1);
      EXPECT_LE(peak[size], 16 * mebibyte + mebibyte);
      // Threads reach their own peaks together or not: only the sum is sure.
      EXPECT_LE(peak_of(spec, kind.stored, kind.quantization, kind.dtype, 3), 3 * peak[size] + mebibyte / 2);
    }
    EXPECT_LE(peak[1], peak[0] + peak[0] / 4 + mebibyte / 2);
  }
}

TEST(PackMemory, ABufferNeverTakesMoreThanTheLargestSizeThatItHad) {
  std::vector<std::byte> buffer;
  const HeapPeak peak;
  std::size_t largest = 0;
  for (const std::size_t size : {1000U, 700U, 1001U, 1700U, 3U, 1701U}) {
    resize_scratch(buffer, size);
    largest = std::max(largest, size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(peak.bytes(), largest);
  }
}

TEST(LoadMemory, HoldsNoSecondCopyOfTheModel) {
  for (const Kind& kind : kinds()) {
    std::size_t peak[2] = {};
    for (const std::size_t size : {0U, 1U}) {
      peak[size] = loading_peak_of(sized(kind, size), kind.stored, kind.quantization, kind.dtype);
      EXPECT_LE(peak[size], 16 * mebibyte + mebibyte);
    }
    EXPECT_LE(peak[1], peak[0] + peak[0] / 4 + mebibyte / 2);
  }
}

}  // namespace
}  // namespace lamella::testing
