// Packing that is cut short at every step it makes on the drive: by kill -9, by a power cut, by a call that fails. The
// next packing always ends with the same bytes, and at no moment is there half a store under the store's name.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <random>
#include <utility>

#include "../io/checkpoint_files.h"
#include "breaking_calls.h"
#include "packing.h"
#include "specs.h"

namespace lamella::testing {
namespace {

using test::content;
using test::TemporaryFolder;

enum class End : std::uint8_t { done, killed, refused, other };
constexpr int refused_code = 17, intact_code = 18;

/// Packs in a process of its own, which breaks at `point`.
End pack_broken(const Packing& packing, int threads, const BreakingPoint& point) {
  const pid_t child = ::fork();
  if (child == 0) {
    break_calls(point);
    try {
      static_cast<void>(packing.run(threads));
      end_broken(has_broken() ? 0 : intact_code);
    } catch (const Error& error) {
      end_broken(error.code() == ErrorCode::io_error ? refused_code : 1);
    } catch (...) {
      end_broken(1);
    }
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGKILL ? End::killed : End::other;
  switch (WEXITSTATUS(status)) {
    case 0:
    case intact_code: return End::done;
    case refused_code: return End::refused;
    default: return End::other;
  }
}

/// Whole lines that name a segment.
std::uint64_t segments_in(const std::string& journal) {
  std::uint64_t count = 0;
  for (std::size_t begin = 0, end = 0; (end = journal.find('\n', begin)) != std::string::npos; begin = end + 1)
    count += journal.compare(begin, 8, "segment ") == 0 ? 1 : 0;
  return count;
}

class PackKill : public ::testing::Test {
 protected:
  PackKill() : whole_{.checkpoint = checkpoint_, .file = folder_.path() / "whole"} {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
    static_cast<void>(whole_.run(2));
    expected_ = content(whole_.file);
  }

  [[nodiscard]] Packing packing(bool replace) const {
    return {
        .checkpoint = checkpoint_, .file = folder_.path() / "store", .target = {.replace = replace, .record_bytes = 1}};
  }

  /// The folder as before the first packing.
  void start_over(const std::string& old_store) const {
    for (const char* name : {"store", "store.partial", "store.journal"}) std::filesystem::remove(folder_.path() / name);
    if (!old_store.empty()) folder_.write("store", old_store);
  }

  /// Whether all was done, the removal of the journal too: to pack again would be another packing.
  [[nodiscard]] bool is_finished() const {
    return content(folder_.path() / "store") == expected_ && !std::filesystem::exists(folder_.path() / "store.journal");
  }

  /// What stands under the store's name is all of something.
  void expect_nothing_half(const std::string& old_store) const {
    const std::string found = content(folder_.path() / "store");
    ASSERT_TRUE(found == old_store || found == expected_);
  }

  /// `exactly`: the segments that the journal names are as it says, so that none of them is packed again.
  void expect_it_goes_on(const Packing& packing, int threads, bool exactly) {
    const bool unfinished = std::filesystem::exists(partial_path(packing.file));
    const std::uint64_t named = segments_in(content(journal_path(packing.file)));
    const PackReport report = packing.run(threads);
    ASSERT_TRUE(content(packing.file) == expected_);
    ASSERT_FALSE(std::filesystem::exists(partial_path(packing.file)));
    ASSERT_FALSE(std::filesystem::exists(journal_path(packing.file)));
    if (exactly && unfinished) {
      ASSERT_EQ(report.kept_segments, named);
    }
    if (exactly && threads_ == 1) {
      ASSERT_GE(report.kept_segments, most_kept_) << "the later the end, the more is done";
    }
    most_kept_ = std::max(most_kept_, report.kept_segments);
  }

  /// Breaks at every step in turn, and goes on after each. Returns how many steps there are. Threads that finish their
  /// segments together share the steps that record them, so that one packing may have fewer steps than another: only
  /// after some in a row that were done before their end could come is there no later step.
  int break_at_every_step(BreakingPoint point, const std::string& old_store, int threads, End expected_end) {
    const Packing target = packing(!old_store.empty());
    int reached = 0, done = 0;
    most_kept_ = 0;
    threads_ = threads;
    for (point.call = 0;; ++point.call) {
      SCOPED_TRACE("step " + std::to_string(point.call) + ", " + std::to_string(threads) + " threads");
      point.seed = seed_ + static_cast<std::uint64_t>(point.call);
      start_over(old_store);
      const End end = pack_broken(target, threads, point);
      expect_nothing_half(old_store);
      EXPECT_NE(end, End::other);
      if (end == expected_end) ++reached;
      if (::testing::Test::HasFatalFailure()) return reached;
      done = end == End::done ? done + 1 : 0;
      if (done > (threads == 1 ? 0 : 12)) return reached;
      if (is_finished()) continue;
      expect_it_goes_on(target, 3 - threads % 3, point.how != Break::lose_power);
      if (::testing::Test::HasFatalFailure()) return reached;
    }
  }

  const std::uint64_t seed_ = std::random_device()();
  TemporaryFolder folder_;
  RandomCheckpoint checkpoint_{
      folder_.path() / "weights", llama_like(2), seed_, {io::StorageType::bf16, io::StorageType::f32}};
  Packing whole_;
  std::string expected_;
  int threads_ = 0;  // of the packing that breaks
  std::uint64_t most_kept_ = 0;
};

TEST_F(PackKill, KilledAtAnyStepItGoesOnToTheSameBytes) {
  for (const int threads : {1, 3}) {
    const int steps = break_at_every_step({.how = Break::kill}, "", threads, End::killed);
    std::printf("%d steps with %d threads\n", steps, threads);
    EXPECT_GT(steps, 40);
    EXPECT_EQ(most_kept_, 10U) << "of 2 layers of 4 segments, embedding and head";
  }
}

TEST_F(PackKill, WithoutPowerAtAnyStepItGoesOnToTheSameBytes) {
  for (const int threads : {1, 2})
    EXPECT_GT(break_at_every_step({.how = Break::lose_power}, "", threads, End::killed), 40);
}

TEST_F(PackKill, AnOldStoreStaysWholeUntilTheNewOneIs) {
  for (const Break how : {Break::kill, Break::lose_power})
    EXPECT_GT(break_at_every_step({.how = how}, "an old store", 2, End::killed), 40);
}

TEST_F(PackKill, KilledAgainAndAgainItEnds) {
  std::mt19937 random(static_cast<std::uint32_t>(seed_));
  for (int round = 0; round < 20; ++round) {
    start_over("");
    int kills = 0;
    for (; kills < 500; ++kills) {
      const BreakingPoint point{.call = std::uniform_int_distribution(0, 25)(random),
                                .how = kills % 2 == 0 ? Break::kill : Break::lose_power,
                                .seed = random()};
      const End end = pack_broken(packing(false), 1 + kills % 3, point);
      ASSERT_NE(end, End::other);
      ASSERT_NE(end, End::refused);
      expect_nothing_half("");
      if (is_finished()) break;
    }
    ASSERT_LT(kills, 500);
    ASSERT_TRUE(content(folder_.path() / "store") == expected_) << kills << " kills";
  }
}

TEST_F(PackKill, AFailingCallIsAnErrorThatLosesNothing) {
  for (const auto& [error, old_store] :
       {std::pair<int, std::string>{ENOSPC, ""}, {EDQUOT, "an old store"}, {EIO, ""}}) {
    SCOPED_TRACE("errno " + std::to_string(error));
    EXPECT_GT(break_at_every_step({.how = Break::fail, .error = error}, old_store, 2, End::refused), 40);
  }
}

TEST_F(PackKill, InterruptedAndShortCallsAreResumed) {
  const Packing target = packing(false);
  int done = 0;
  for (const BreakingPoint kind : {BreakingPoint{.how = Break::shorten}, {.how = Break::fail, .error = EINTR}}) {
    for (int call = 0; call < 80; ++call) {
      BreakingPoint point = kind;
      point.call = call;
      start_over("");
      const End end = pack_broken(target, 1, point);
      // rename and unlink are never interrupted, so that to refuse is fair then.
      ASSERT_TRUE(end == End::done || (kind.error == EINTR && end == End::refused)) << call;
      if (end == End::done) {
        ASSERT_TRUE(content(target.file) == expected_) << call;
        ++done;
      }
      expect_nothing_half("");
    }
  }
  EXPECT_EQ(done, 160 - 2);
}

TEST_F(PackKill, WithoutRoomNothingIsLeft) {
  // The first calls empty and reserve, and begin the journal.
  int call = 0;
  for (;; ++call) {
    start_over("");
    EXPECT_EQ(pack_broken(packing(false), 1, {.call = call, .how = Break::fail, .error = ENOSPC}), End::refused);
    const bool journal = std::filesystem::exists(folder_.path() / "store.journal");
    EXPECT_EQ(std::filesystem::exists(folder_.path() / "store.partial"), journal) << call;
    if (journal) break;
  }
  EXPECT_EQ(call, 8)
      << "journal emptied and synced, partial emptied, reserved and synced, journal begun and synced, names";
}

TEST_F(PackKill, WorksWhereTheFileSystemCannotReserve) {
  start_over("");
  for (int call = 0; call < 8; ++call) {
    start_over("");
    const End end = pack_broken(packing(false), 2, {.call = call, .how = Break::fail, .error = EOPNOTSUPP});
    if (end == End::done) {
      EXPECT_TRUE(content(folder_.path() / "store") == expected_);
      return;
    }
  }
  ADD_FAILURE() << "fallocate was not among the first calls";
}

}  // namespace
}  // namespace lamella::testing
