// Packing that was cut short: it goes on where it was, where what is there can be trusted, and otherwise starts afresh.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <exception>

#include "../io/checkpoint_files.h"
#include "packing.h"
#include "packing_checks.h"
#include "specs.h"

namespace lamella::testing {
namespace {

using test::content;
using test::expect_error;
using test::TemporaryFolder;

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

TEST(PackResume, GoesOnWhereItStoppedWhateverTheThreads) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(3), recorded_seed());
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

TEST(PackResume, GoesOnThroughALinkedFolderAndAfterAChangeOfFolder) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(3), recorded_seed());
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

TEST(PackResume, WhatTheProgressFunctionThrowsWhileGoingOnIsWhatComesOut) {
  struct Interrupted : std::exception {};
  const TemporaryFolder folder;
  ModelSpec spec = llama_like(6);
  spec.vocab = 30011;
  const RandomCheckpoint checkpoint(folder.path() / "weights", spec, recorded_seed());
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

TEST(PackResume, TrustsNoSegmentWithoutItsChecksum) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(3), recorded_seed());
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

TEST(PackResume, ReadsADamagedJournalAsFarAsItIsSound) {
  const TemporaryFolder folder;
  const RandomCheckpoint checkpoint(folder.path() / "weights", llama_like(2), recorded_seed());
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

TEST(PackResume, StartsAfreshWithANoticeWhenAnythingThatCountsHasChanged) {
  const std::uint64_t seed = recorded_seed();
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

TEST(PackResume, NoticesFilesThatChangeWhileTheyArePacked) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "weights";
  const RandomCheckpoint checkpoint(path, llama_like(2), recorded_seed());
  Packing packing{.checkpoint = checkpoint, .file = folder.path() / "store", .target = {.record_bytes = 1}};
  packing.target.progress = [&](std::uint64_t, std::uint64_t) {
    std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now());
  };
  expect_error(ErrorCode::checkpoint_changed, {"weights"}, [&] { packing.run(2); });
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"weights"}));
}

}  // namespace
}  // namespace lamella::testing
