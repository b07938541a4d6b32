// A rank loads its part of a checkpoint: the same numbers, codes and scales as the whole has there.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "checkpoints.h"
#include "io/store_files.h"
#include "parts.h"
#include "plan/build_plan.h"
#include "plan/passes/tensor_slicing.h"
#include "rank_weights.h"
#include "seed.h"
#include "specs.h"
#include "store/load_parts.h"

namespace lamella::testing {
namespace {

/// Widths that whole blocks of 256 divide, heads that they do not.
ModelSpec wide(ModelSpec spec) {
  spec.hidden = 256;
  for (LayerSpec& layer : spec.layers) {
    AttentionSpec& attention = layer.attention;
    attention.heads = 8;
    attention.kv_heads = attention.kv_heads == 5 ? 8 : 2;
    attention.head_dim = 32;
    if (attention.rope) attention.rope->rotary_dim = 32;
    layer.mlp.intermediate = 512;
  }
  return spec;
}

class LoadParts : public ::testing::Test {
 protected:
  LoadParts()
      : path_(std::filesystem::temp_directory_path() / ("lamella_parts_" + std::to_string(::getpid()))),
        store_path_(path_.string() + ".lamella") {}
  ~LoadParts() override {
    std::filesystem::remove(path_);
    std::filesystem::remove(store_path_);
  }

  void expect_parts(const ModelSpec& spec, const std::vector<io::StorageType>& types, const WeightFormat& format) {
    const RandomCheckpoint checkpoint(path_, spec, fresh_seed(), types);
    PlanOptions options{.dtype = DataType::f32,
                        .kv_pool_blocks = 1,
                        .bounds = {.tokens = 4, .sequences = 1, .rows = 1, .kv_blocks = 1}};
    for (const WeightDeclaration& weight : declare_weights(spec))
      options.weight_formats.push_back(is_vector(weight.id.slot)      ? formats::f32
                                       : is_embedding(weight.id.slot) ? formats::q8_0
                                                                      : format);
    const Plan plan = build_plan(spec, options);
    ThreadTeam team(2);
    io::PreadReader reader;
    ResidentWeights whole(plan.weights);
    load_weights(only(whole), checkpoint.recipe(), checkpoint.tensors(), reader, team);
    std::ofstream(store_path_, std::ios::binary) << test::store_of(spec, DataType::f32, whole);
    const PackedStore store = open_store(store_path_);
    for (int ranks = 2; ranks <= 4; ++ranks) {
      for (int rank = 0; rank < ranks; ++rank) {
        const Plan own = tensor_slicing(plan, {.rank = rank, .ranks = ranks});
        ResidentWeights loaded(own.weights), from_store(own.weights), expected(own.weights);
        load_weights(only(loaded), checkpoint.recipe(), checkpoint.tensors(), reader, team);
        load_parts(only(from_store), store, reader, team);
        take_parts(whole, expected);
        for (const WeightDeclaration& weight : own.weights) {
          const auto same = [&](const ResidentWeights& found) {
            return std::ranges::equal(found.bytes(weight.id), expected.bytes(weight.id));
          };
          ASSERT_TRUE(same(loaded) && same(from_store))
              << to_string(weight.id) << " of rank " << rank << " of " << ranks << " in " << to_string(format);
        }
      }
    }
  }

  std::filesystem::path path_, store_path_;
};

TEST_F(LoadParts, AreThoseOfTheWholeInEveryArrangement) {  // by columns, fused, in pairs; sizes off every grid
  for (const ModelSpec& spec : {llama_like(1), gpt2_like(1), neox_like(1), qwen_moe_like(1), gpt_moe_like(2)}) {
    SCOPED_TRACE(spec.family);
    for (const WeightFormat& format : {formats::f32, formats::bf16, formats::int8, formats::int4})
      expect_parts(spec, {io::StorageType::f32}, format);
  }
}

TEST_F(LoadParts, AreThoseOfTheWholeInBlocks) {
  using io::StorageType;
  for (const ModelSpec& spec : {wide(llama_like(1)), wide(neox_like(1))}) {
    SCOPED_TRACE(spec.family);
    for (const WeightFormat& format : {formats::f32, formats::int4, formats::int4_a8, formats::q4_1, formats::q8_0,
                                       formats::int8_rotated, formats::int8_weight_only})
      for (const StorageType type :
           {StorageType::q4_0, StorageType::q4_1, StorageType::q8_0, StorageType::q4_k, StorageType::bf16})
        expect_parts(spec, {type}, format);
  }
}

}  // namespace
}  // namespace lamella::testing
