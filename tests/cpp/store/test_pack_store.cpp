// Packing into a file: what comes out, on which conditions, and that nothing but the input decides it.
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "../io/checkpoint_files.h"
#include "packing.h"
#include "packing_checks.h"
#include "specs.h"

namespace lamella::testing {
namespace {

using io::StorageType;
using test::content;
using test::expect_error;
using test::TemporaryFolder;

constexpr Quantization presets[] = {Quantization::none, Quantization::dequantize, Quantization::int8_weight_only,
                                    Quantization::int8, Quantization::int4,       Quantization::int4_a8};
constexpr DataType dtypes[] = {DataType::f32, DataType::bf16, DataType::f16};

/// Widths of whole GGUF blocks, so that codes can be kept.
ModelSpec in_blocks(ModelSpec spec) {
  spec.hidden = 64;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.heads = 4, layer.attention.kv_heads = spec.family == "llama" ? 2 : 4, layer.attention.head_dim = 16;
    layer.mlp.intermediate = 96;
  }
  return spec;
}

TEST(PackStore, HoldsWhatLoadingGivesInEveryPresetAndDtype) {
  const std::uint64_t seed = recorded_seed();
  for (const ModelSpec& spec : {llama_like(), gpt2_like(), neox_like(), bert_like(), mixtral_like(), qwen_moe_like(),
                                gpt_moe_like(), in_blocks(llama_like())}) {
    const TemporaryFolder folder;
    const RandomCheckpoint checkpoint(folder.path() / "weights", spec, seed,
                                      {StorageType::bf16, StorageType::q4_1, StorageType::f32, StorageType::q8_0,
                                       StorageType::q4_0, StorageType::f16});
    for (const Quantization quantization : presets) {
      for (const DataType dtype : dtypes) {
        SCOPED_TRACE(spec.family + ", preset " + std::to_string(int(quantization)) + ", " + std::to_string(int(dtype)));
        const Packing packing{.checkpoint = checkpoint,
                              .file = folder.path() / "store",
                              .quantization = quantization,
                              .dtype = dtype,
                              .target = {.replace = true}};
        expect_loaded_bytes(packing, packing.run(3));
        EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"store", "weights"}));
      }
    }
  }
}

TEST(PackStore, ThreadsChangeNoByteAndPiecesMeet) {
  const std::uint64_t seed = recorded_seed();
  ModelSpec spec = llama_like(1);
  spec.vocab = 30011;  // several pieces
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", spec, seed, {StorageType::f16, StorageType::f32});
  for (const Quantization quantization : {Quantization::dequantize, Quantization::int4}) {
    Packing packing{.checkpoint = checkpoint,
                    .file = folder.path() / "one",
                    .quantization = quantization,
                    .target = {.replace = true}};
    expect_loaded_bytes(packing, packing.run(1));
    for (const int threads : {2, 3, 4, 9}) {
      packing.file = folder.path() / "many";
      expect_loaded_bytes(packing, packing.run(threads));
      EXPECT_TRUE(content(folder.path() / "one") == content(packing.file)) << threads << " threads";
    }
  }
}

TEST(PackStore, StoresATiedEmbeddingOnce) {
  const TemporaryFolder folder;
  ModelSpec spec = llama_like(1);
  spec.vocab = 4096;
  const RandomCheckpoint tied(folder.path() / "tied", spec, recorded_seed());
  spec.head.tied = false;
  const RandomCheckpoint untied(folder.path() / "untied", spec, 1);
  const std::uint64_t with = Packing{.checkpoint = tied, .file = folder.path() / "a"}.run(1).file_bytes;
  const std::uint64_t without = Packing{.checkpoint = untied, .file = folder.path() / "b"}.run(1).file_bytes;
  const std::uint64_t embedding = 4096 * 36 * 2;
  EXPECT_LT(with, 2 * embedding);
  EXPECT_GE(without, with + embedding);
}

TEST(PackStore, ReportsProgressUpToTheWholeFile) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", gpt2_like(), recorded_seed());
  std::vector<std::uint64_t> seen;
  std::uint64_t in_all = 0;
  const Packing packing{.checkpoint = checkpoint,
                        .file = folder.path() / "store",
                        .target = {.progress = [&](std::uint64_t done, std::uint64_t total) {
                          seen.push_back(done);
                          in_all = total;
                        }}};
  const PackReport report = packing.run(3);
  EXPECT_TRUE(std::ranges::is_sorted(seen));
  EXPECT_EQ(in_all, report.file_bytes);
  EXPECT_EQ(seen.back(), report.file_bytes);
}

// ---- what is there already -------------------------------------------------------------------------------------------

TEST(PackStore, LeavesAnExistingFileAloneUnlessToldToReplaceIt) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(), recorded_seed());
  Packing packing{.checkpoint = checkpoint, .file = folder.write("store", "mine")};
  expect_error(ErrorCode::io_error, {"store", "already", "--force"}, [&] { packing.run(2); });
  EXPECT_EQ(content(packing.file), "mine");
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"store", "weights"}));
  packing.target.replace = true;
  expect_loaded_bytes(packing, packing.run(2));
}

// ---- who may write ---------------------------------------------------------------------------------------------------

TEST(PackStore, OnlyOnePacksIntoAFolder) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(2), recorded_seed());
  const Packing second{.checkpoint = checkpoint, .file = folder.path() / "store"};
  bool tried = false;
  Packing first = second;
  first.target.progress = [&](std::uint64_t, std::uint64_t) {
    if (std::exchange(tried, true)) return;
    expect_error(ErrorCode::io_error, {"store", "another process"}, [&] { second.run(1); });
  };
  expect_loaded_bytes(first, first.run(2));
  EXPECT_TRUE(tried);
}

/// Removes a packing's files under it, as its owner may, and puts those of another packing in their place.
void take_over(const TemporaryFolder& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    std::filesystem::remove(folder.path() / name);
    folder.write(name, "another's " + name);
  }
}

TEST(PackStore, AnothersFilesAreNeitherPublishedNorRemoved) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "weights";
  RandomCheckpoint checkpoint(path, llama_like(2), recorded_seed());
  const Packing plain{.checkpoint = checkpoint, .file = folder.path() / "store"};
  enum class When : std::uint8_t { writing, publishing, giving_up };
  for (const std::vector<std::string>& names : std::vector<std::vector<std::string>>{
           {"store.partial", "store.journal"}, {"store.partial"}, {"store.journal"}}) {
    for (const When when : {When::writing, When::publishing, When::giving_up}) {
      SCOPED_TRACE(names[0] + ", " + std::to_string(names.size()) + " files, " + std::to_string(int(when)));
      bool taken = false, beside = false;
      const auto take = [&] {
        if (!std::exchange(taken, true)) take_over(folder, names);
      };
      Packing packing = plain;
      packing.target.progress = [&](std::uint64_t, std::uint64_t) {
        if (when != When::publishing) take();
        if (when == When::giving_up)
          std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now());
      };
      packing.target.before_publishing = [&] {
        beside = true;
        take();
      };
      const bool changed = when == When::giving_up;
      expect_error(changed ? ErrorCode::checkpoint_changed : ErrorCode::io_error,
                   {changed ? "weights" : "removed or replaced"}, [&] { packing.run(2); });
      EXPECT_EQ(beside, when == When::publishing);
      EXPECT_FALSE(std::filesystem::exists(packing.file));
      for (const std::string& name : names) EXPECT_EQ(content(folder.path() / name), "another's " + name);
      for (const char* name : {"store.partial", "store.journal"}) std::filesystem::remove(folder.path() / name);
      checkpoint.reopen();
    }
  }
}

TEST(PackStore, AStoreThatAppearsMeanwhileIsNotReplaced) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(2), recorded_seed());
  for (const bool late : {false, true}) {
    Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store"};
    bool beside = false;
    packing.target.progress = [&](std::uint64_t, std::uint64_t) {
      if (!late) folder.write("store", "another's");
    };
    packing.target.before_publishing = [&] {
      beside = true;
      folder.write("store", "another's");
    };
    expect_error(ErrorCode::io_error, {"store", "already", "--force"}, [&] { packing.run(2); });
    EXPECT_EQ(beside, late);
    EXPECT_EQ(content(packing.file), "another's");
    packing.target = {.replace = true};
    const PackReport report = packing.run(2);
    EXPECT_EQ(report.kept_segments, report.segments);
    expect_loaded_bytes(packing, report);
    std::filesystem::remove(packing.file);
  }
}

TEST(PackStore, IsPublishedAfterWhatBelongsBesideIt) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(2), recorded_seed());
  Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store"};
  int calls = 0;
  packing.target.before_publishing = [&] {
    ++calls;
    EXPECT_FALSE(std::filesystem::exists(packing.file));
    throw Error(ErrorCode::io_error, "no room for the tokenizer");
  };
  expect_error(ErrorCode::io_error, {"tokenizer"}, [&] { packing.run(2); });
  EXPECT_FALSE(std::filesystem::exists(packing.file));
  packing.target.before_publishing = [&] { ++calls; };
  const PackReport report = packing.run(2);
  EXPECT_EQ(report.kept_segments, report.segments);
  EXPECT_EQ(calls, 2);
  expect_loaded_bytes(packing, report);
}

TEST(PackStore, RefusesPlacesWhereItCannotWrite) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(1), recorded_seed());
  const auto refused = [&](const std::filesystem::path& file, const std::vector<std::string>& parts) {
    const Packing packing{.checkpoint = checkpoint, .file = file};
    expect_error(ErrorCode::io_error, parts, [&] { packing.run(1); });
  };
  refused(folder.path() / "absent" / "store", {"absent/store", "No such file"});
  std::filesystem::create_directory(folder.path() / "a");
  std::filesystem::create_directory(folder.path() / "a" / "store.partial");
  refused(folder.path() / "a" / "store", {"a/store.partial", "directory"});
  std::filesystem::create_directory(folder.path() / "b");
  std::filesystem::create_symlink(folder.path() / "weights", folder.path() / "b" / "store.partial");
  refused(folder.path() / "b" / "store", {"b/store.partial", "symbolic links"});
  for (const char* name : {"a", "b"})
    EXPECT_EQ(names_in(folder.path() / name), (std::vector<std::string>{"store.partial"})) << "no journal is left";
}

TEST(PackStore, ABadRecipeLeavesNothingBehind) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(1), recorded_seed());
  LoadRecipe recipe = checkpoint.recipe();
  recipe.back().tensor = "absent";
  const Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store"};
  const std::vector<WeightFormat> formats = packing.formats();
  io::PreadReader reader;
  ThreadTeam team(1);
  expect_error(ErrorCode::invalid_checkpoint, {"absent"}, [&] {
    static_cast<void>(
        pack_store({.model = checkpoint.spec(), .recipe = recipe, .tensors = checkpoint.tensors(), .formats = formats},
                   {.file = packing.file}, reader, team));
  });
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"weights"}));
}

}  // namespace
}  // namespace lamella::testing
