// Packing into a file: what comes out, on which conditions, and that nothing but the input decides it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <random>
#include <utility>

#include "../io/checkpoint_files.h"
#include "io/containers/store_verify.h"
#include "io/refuse.h"
#include "memory/resident_weights.h"
#include "packing.h"
#include "specs.h"
#include "store/load_store.h"
#include "store/load_weights.h"

namespace lamella::testing {
namespace {

using io::StorageType;
using test::content;
using test::expect_error;
using test::TemporaryFolder;

constexpr Quantization presets[] = {Quantization::none, Quantization::dequantize, Quantization::int8_weight_only,
                                    Quantization::int8, Quantization::int4,       Quantization::int4_a8};
constexpr DataType dtypes[] = {DataType::f32, DataType::bf16, DataType::f16};

std::uint64_t fresh_seed() {
  const std::uint64_t seed = std::random_device()();
  ::testing::Test::RecordProperty("seed", std::to_string(seed));
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

/// Widths of whole GGUF blocks, so that codes can be kept.
ModelSpec in_blocks(ModelSpec spec) {
  spec.hidden = 64;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.heads = 4, layer.attention.kv_heads = spec.family == "llama" ? 2 : 4, layer.attention.head_dim = 16;
    layer.mlp.intermediate = 96;
  }
  return spec;
}

std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

/// Every weight of the store holds the bytes that loading into memory gives, and the file is sound in every byte.
void expect_loaded_bytes(const Packing& packing, const PackReport& report) {
  const io::File file(packing.file);
  const io::StoreHeader header = io::read_store_header(file);
  EXPECT_EQ(header.digest, report.digest);
  EXPECT_EQ(header.file_bytes, report.file_bytes);
  EXPECT_EQ(header.dtype, packing.dtype);
  io::PreadReader reader;
  ThreadTeam team(2);
  EXPECT_NO_THROW(io::verify_store(file, reader, header, team));

  std::vector<WeightDeclaration> declared = declare_weights(packing.checkpoint.spec());
  set_formats(declared, packing.formats());
  ResidentWeights weights(declared);
  load_weights(weights, packing.checkpoint.recipe(), packing.checkpoint.tensors(), reader, team);
  ASSERT_EQ(header.weights.size(), declared.size());
  const std::string bytes = content(packing.file);
  ResidentWeights loaded(declared);
  load_store(loaded, open_store(packing.file), reader, team);
  for (const io::StoreWeight& weight : header.weights) {
    const auto stored =
        std::as_bytes(std::span(bytes)).subspan(header.segments[weight.segment].offset + weight.offset, weight.bytes);
    ASSERT_TRUE(std::ranges::equal(stored, weights.bytes(weight.id))) << to_string(weight.id);
    ASSERT_TRUE(std::ranges::equal(loaded.bytes(weight.id), weights.bytes(weight.id))) << to_string(weight.id);
  }
}

TEST(PackStore, HoldsWhatLoadingGivesInEveryPresetAndDtype) {
  const std::uint64_t seed = fresh_seed();
  for (const ModelSpec& spec : {llama_like(), gpt2_like(), neox_like(), bert_like(), in_blocks(llama_like())}) {
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
  const std::uint64_t seed = fresh_seed();
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
  const RandomCheckpoint tied(folder.path() / "tied", spec, fresh_seed());
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
  const RandomCheckpoint checkpoint(folder.path() / "weights", gpt2_like(), fresh_seed());
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
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(), fresh_seed());
  Packing packing{.checkpoint = checkpoint, .file = folder.write("store", "mine")};
  expect_error(ErrorCode::io_error, {"store", "already", "--force"}, [&] { packing.run(2); });
  EXPECT_EQ(content(packing.file), "mine");
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"store", "weights"}));
  packing.target.replace = true;
  expect_loaded_bytes(packing, packing.run(2));
}

/// A reader that fails at one of its reads.
class StoppingReader final : public io::Reader {
 public:
  explicit StoppingReader(int reads) : left_(reads) {}
  void read(const io::File& file, std::uint64_t offset, std::span<std::byte> out) override {
    if (left_-- <= 0) throw Error(ErrorCode::io_error, "the drive failed");
    file.read(offset, out);
  }

 private:
  std::atomic<int> left_;
};

TEST(PackStore, GoesOnWhereItStoppedWhateverTheThreads) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(3), fresh_seed());
  const Packing whole{.checkpoint = checkpoint, .file = folder.path() / "whole"};
  const PackReport expected = whole.run(2);
  const Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store", .target = {.record_bytes = 1}};
  std::uint64_t kept = 0;
  for (int round = 0; round < 40; ++round) {
    StoppingReader reader(5);
    try {
      const PackReport report = packing.run(1 + round % 3, reader);
      EXPECT_GT(report.kept_segments, 0U);
      EXPECT_LT(report.kept_bytes, expected.file_bytes);
      kept = report.kept_segments;
      break;
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "the drive failed");
      EXPECT_EQ(names_in(folder.path()),
                (std::vector<std::string>{"store.journal", "store.partial", "weights", "whole"}));
    }
  }
  EXPECT_GT(kept, 8U) << "it never got to the end";
  EXPECT_TRUE(content(packing.file) == content(whole.file));
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"store", "weights", "whole"}));
}

/// Runs until the reader stops it.
void stop_early(const Packing& packing, int reads) {
  StoppingReader reader(reads);
  EXPECT_THROW(packing.run(1, reader), Error);
}

TEST(PackStore, GoesOnThroughALinkedFolderAndAfterAChangeOfFolder) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(3), fresh_seed());
  std::filesystem::create_directory(folder.path() / "real");
  std::filesystem::create_directory_symlink(folder.path() / "real", folder.path() / "link");
  const Packing linked{
      .checkpoint = checkpoint, .file = folder.path() / "link" / "store", .target = {.record_bytes = 1}};
  stop_early(linked, 20);
  EXPECT_GT(linked.run(2).kept_segments, 0U);
  std::filesystem::remove(linked.file);

  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path() / "real");
  Packing relative = linked;
  relative.file = "store";
  stop_early(relative, 20);
  relative.target.progress = [&](std::uint64_t, std::uint64_t) { std::filesystem::current_path(before); };
  EXPECT_GT(relative.run(2).kept_segments, 0U);
  EXPECT_EQ(names_in(folder.path() / "real"), (std::vector<std::string>{"store"}));
}

TEST(PackStore, WhatTheProgressFunctionThrowsWhileGoingOnIsWhatComesOut) {
  struct Interrupted : std::exception {};
  const TemporaryFolder folder;
  ModelSpec spec = llama_like(6);
  spec.vocab = 30011;
  const RandomCheckpoint checkpoint(folder.path() / "weights", spec, fresh_seed());
  Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store", .target = {.record_bytes = 1}};
  packing.target.before_publishing = [] { throw Interrupted(); };
  EXPECT_THROW(packing.run(2), Interrupted);
  for (int round = 0; round < 50; ++round) {
    int calls = 0;
    packing.target.progress = [&](std::uint64_t, std::uint64_t) {
      if (++calls > round % 5) throw Interrupted();
    };
    ASSERT_THROW(packing.run(4), Interrupted) << round;
  }
}

TEST(PackStore, TrustsNoSegmentWithoutItsChecksum) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(3), fresh_seed());
  const Packing whole{.checkpoint = checkpoint, .file = folder.path() / "whole"};
  const PackReport expected = whole.run(2);
  const io::StoreHeader header = io::read_store_header(io::File(whole.file));
  const Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store", .target = {.record_bytes = 1}};
  stop_early(packing, 20);
  const std::string partial = content(partial_path(packing.file)), journal = content(journal_path(packing.file));
  std::size_t finished = 0;
  for (std::size_t at = journal.find("\nsegment "); at != std::string::npos; at = journal.find("\nsegment ", at + 1))
    ++finished;
  ASSERT_GT(finished, 3U);
  for (std::size_t segment = 0; segment < finished; ++segment) {
    // A byte of the segment, and one of the padding behind it.
    for (const std::uint64_t at : {header.segments[segment].offset + 5, header.segments[segment + 1].offset - 1}) {
      std::string damaged = partial;
      damaged[at] ^= 1;
      folder.write("store.partial", damaged);
      folder.write("store.journal", journal);
      const PackReport report = packing.run(2);
      EXPECT_EQ(report.kept_segments, finished - 1);
      EXPECT_TRUE(content(packing.file) == content(whole.file)) << at;
      std::filesystem::remove(packing.file);
    }
  }
  EXPECT_EQ(expected.kept_segments, 0U);
}

TEST(PackStore, ReadsADamagedJournalAsFarAsItIsSound) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(2), fresh_seed());
  const Packing whole{.checkpoint = checkpoint, .file = folder.path() / "whole"};
  static_cast<void>(whole.run(2));
  const Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store", .target = {.record_bytes = 1}};
  stop_early(packing, 16);
  const std::string partial = content(partial_path(packing.file)), journal = content(journal_path(packing.file));
  for (std::size_t cut = 0; cut <= journal.size(); cut += 19) {
    for (const bool torn : {false, true}) {
      std::string text = torn ? journal : journal.substr(0, cut);
      if (torn && cut < text.size()) text[cut] ^= 4;
      folder.write("store.partial", partial);
      folder.write("store.journal", text);
      const PackReport report = packing.run(2);
      ASSERT_TRUE(content(packing.file) == content(whole.file)) << cut << (torn ? " torn" : " cut");
      const auto lines = std::ranges::count(std::string_view(text).substr(0, cut), '\n');
      EXPECT_EQ(report.kept_segments, static_cast<std::uint64_t>(std::max<std::ptrdiff_t>(lines - 1, 0)));
      std::filesystem::remove(packing.file);
    }
  }
}

TEST(PackStore, StartsAfreshWithANoticeWhenAnythingThatCountsHasChanged) {
  const std::uint64_t seed = fresh_seed();
  const TemporaryFolder folder;
  const auto path = folder.path() / "weights";
  const RandomCheckpoint checkpoint(path, llama_like(2), seed);
  std::vector<std::string> notices;
  const PackTarget target{.notice = [&](std::string_view text) { notices.emplace_back(text); }, .record_bytes = 1};
  const Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store", .target = target};
  const auto expect_afresh = [&](const Packing& other, const std::string& why) {
    notices.clear();
    const PackReport report = other.run(2);
    EXPECT_EQ(report.kept_segments, 0U) << why;
    ASSERT_EQ(notices.size(), 1U) << why;
    EXPECT_NE(notices[0].find("store.partial"), std::string::npos);
    EXPECT_NE(notices[0].find("afresh"), std::string::npos);
    expect_loaded_bytes(other, report);
    std::filesystem::remove(other.file);
    stop_early(packing, 10);
    notices.clear();
  };
  stop_early(packing, 10);
  EXPECT_TRUE(notices.empty());

  Packing halves = packing, integers = packing;
  halves.dtype = DataType::f16;
  expect_afresh(halves, "another dtype");
  integers.quantization = Quantization::int8;
  expect_afresh(integers, "another preset");
  {
    const RandomCheckpoint finetuned(folder.path() / "finetuned", llama_like(2), seed + 1);
    const Packing of_other{.checkpoint = finetuned, .file = packing.file, .target = target};
    expect_afresh(of_other, "another file of the same size");
    // Even one that took over its time.
    RandomCheckpoint again(folder.path() / "again", llama_like(2), seed + 1);
    std::filesystem::last_write_time(folder.path() / "again", std::filesystem::last_write_time(path));
    again.reopen();
    const Packing of_again{.checkpoint = again, .file = packing.file, .target = target};
    expect_afresh(of_again, "another file of the same size and time");
  }
  ModelSpec renamed = llama_like(2);
  renamed.max_positions += 1;
  {
    const RandomCheckpoint same_size(folder.path() / "renamed", renamed, seed);
    expect_afresh({.checkpoint = same_size, .file = packing.file, .target = target}, "another model");
  }
  std::filesystem::resize_file(partial_path(packing.file), 5000);
  expect_afresh(packing, "a partial file of another size");
  std::filesystem::remove(journal_path(packing.file));
  expect_afresh(packing, "no journal");
  folder.write("store.journal", "not a journal\n");
  expect_afresh(packing, "a damaged journal");
  // Far longer than so few segments need: to read all of it into memory may take more than there is.
  std::filesystem::resize_file(journal_path(packing.file), std::uintmax_t{1} << 26);
  expect_afresh(packing, "a journal that is too long");
}

TEST(PackStore, NoticesFilesThatChangeWhileTheyArePacked) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "weights";
  const RandomCheckpoint checkpoint(path, llama_like(2), fresh_seed());
  Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store", .target = {.record_bytes = 1}};
  packing.target.progress = [&](std::uint64_t, std::uint64_t) {
    std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now());
  };
  expect_error(ErrorCode::checkpoint_changed, {"weights"}, [&] { packing.run(2); });
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"weights"}));
}

// ---- who may write ---------------------------------------------------------------------------------------------------

TEST(PackStore, OnlyOnePacksIntoAFolder) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(2), fresh_seed());
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
  RandomCheckpoint checkpoint(path, llama_like(2), fresh_seed());
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
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(2), fresh_seed());
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
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(2), fresh_seed());
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
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(1), fresh_seed());
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
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(1), fresh_seed());
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
