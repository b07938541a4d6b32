// What packing holds in memory: so much a thread, however long the segments. Every allocation of this program counts.
#include <gtest/gtest.h>

#include "../io/checkpoint_files.h"
#include "counting_new.h"
#include "packing.h"
#include "specs.h"

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

TEST(PackMemory, DoesNotGrowWithTheModel) {
  ModelSpec in_blocks = llama_like(1);
  in_blocks.hidden = 64;
  for (const Kind& kind : {Kind{llama_like(1), io::StorageType::bf16, Quantization::none, DataType::bf16},
                           Kind{in_blocks, io::StorageType::q4_0, Quantization::dequantize, DataType::f32},
                           Kind{neox_like(1), io::StorageType::f32, Quantization::int8, DataType::f32},
                           Kind{wide(gpt2_like(1)), io::StorageType::f32, Quantization::int8, DataType::f32}}) {
    std::size_t peak[2] = {};
    for (const std::size_t size : {0U, 1U}) {
      ModelSpec spec = kind.spec;
      if (spec.hidden < 1000) spec.vocab = size == 0 ? 60'000 : 200'000;  // one segment grows
      else spec.layers.resize(size == 0 ? 1 : 3, spec.layers[0]);  // there are more of them
      peak[size] = peak_of(spec, kind.stored, kind.quantization, kind.dtype, 1);
      EXPECT_LE(peak[size], 16 * mebibyte + mebibyte);
      // Threads reach their own peaks together or not: only the sum is sure.
      EXPECT_LE(peak_of(spec, kind.stored, kind.quantization, kind.dtype, 3), 3 * peak[size] + mebibyte / 2);
    }
    EXPECT_LE(peak[1], peak[0] + peak[0] / 4 + mebibyte / 2);
  }
}

}  // namespace
}  // namespace lamella::testing
