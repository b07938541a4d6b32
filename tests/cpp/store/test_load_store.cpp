// Weights from a packed store: every byte in its place, every damaged one found, whoever reads what.
#include "store/load_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <mutex>
#include <set>

#include "base/check.h"
#include "base/checksum.h"
#include "formats.h"
#include "io/checkpoint_files.h"
#include "io/containers/store_layout.h"
#include "io/store_files.h"
#include "specs.h"

namespace lamella::testing {
namespace {

using test::store_file;
using test::TemporaryFolder;

ResidentWeights room_for(const io::StoreHeader& header) {
  std::vector<WeightDeclaration> declared = declare_weights(header.model);
  set_formats(declared, io::declared_formats(header));
  return ResidentWeights(std::move(declared));
}

/// Compares by what the header says of places, not by how loading finds them.
void expect_loaded(const ResidentWeights& weights, const io::StoreHeader& header, const std::string& file) {
  for (const io::StoreWeight& weight : header.weights) {
    const std::span<const std::byte> bytes = weights.bytes(weight.id);
    ASSERT_EQ(bytes.size(), weight.bytes);
    ASSERT_EQ(
        std::memcmp(bytes.data(), file.data() + header.segments[weight.segment].offset + weight.offset, weight.bytes),
        0)
        << to_string(weight.id);
  }
}

/// A model whose embedding is `megabytes` long in fp32, and little else.
ModelSpec with_long_embedding(int megabytes) {
  ModelSpec spec = test::tiny_spec();
  spec.vocab = megabytes * (1 << 20) / 48 + 5;
  return spec;
}

/// A reader that does something else first.
class Watched final : public io::Reader {
 public:
  explicit Watched(std::function<void(std::uint64_t offset)> before) : before_(std::move(before)) {}
  void read(const io::File& file, std::uint64_t offset, std::span<std::byte> out) override {
    before_(offset);
    file.read(offset, out);
  }

 private:
  std::function<void(std::uint64_t)> before_;
};

TEST(LoadStore, EveryByteComesToItsPlace) {
  const TemporaryFolder folder;
  std::uint64_t seed = 1;
  for (const ModelSpec& spec : {test::tiny_spec(), llama_like(3), gpt2_like(), neox_like(), bert_like(), mixtral_like(),
                                qwen_moe_like(), sigmoid_moe_like(), with_long_embedding(5)})
    for (int threads = 1; threads <= 4; ++threads) {
      SCOPED_TRACE(concat(spec.family, ", ", threads, " threads"));
      const std::string file = store_file(spec, all_formats(), ++seed);
      const PackedStore store = open_store(folder.write("model.lamella", file));
      ResidentWeights weights = room_for(store.header);
      io::PreadReader reader;
      ThreadTeam team(threads);
      std::uint64_t expected = 0, seen = 0, all = 0;
      for (const io::StoreSegment& segment : store.header.segments) expected += segment.bytes;
      load_store(weights, store, reader, team, [&](std::uint64_t done, std::uint64_t total) {
        EXPECT_GT(done, seen);
        seen = done, all = total;
      });
      EXPECT_EQ(seen, expected);
      EXPECT_EQ(all, expected);
      expect_loaded(weights, store.header, file);
    }
}

TEST(LoadStore, OpensAFileOrTheFolderThatHoldsIt) {
  const TemporaryFolder folder;
  const std::string file = store_file(test::tiny_spec(), {formats::int8});
  const auto path = folder.write("store/model.lamella", file);
  const std::string digest = test::parse_store(file).digest;
  EXPECT_EQ(open_store(path).header.digest, digest);
  EXPECT_EQ(open_store(path.parent_path()).header.digest, digest);
  EXPECT_EQ(open_store(folder.write("other-name", file)).header.digest, digest);
  test::expect_error(ErrorCode::invalid_checkpoint, {"no model.lamella", "lamella pack"},
                     [&] { static_cast<void>(open_store(folder.path())); });
  test::expect_error(ErrorCode::io_error, {"absent"}, [&] { static_cast<void>(open_store(folder.path() / "absent")); });
  std::filesystem::create_symlink(path, folder.path() / "model.lamella");
  EXPECT_EQ(open_store(folder.path()).header.digest, digest);
  const TemporaryFolder elsewhere;
  std::filesystem::create_symlink(path, elsewhere.path() / "model.lamella");
  EXPECT_THROW(static_cast<void>(open_store(elsewhere.path())), Error);  // A10: a link out of the folder
}

TEST(LoadStore, StoresAreKnownByTheirFirstBytesOrTheirName) {
  const TemporaryFolder folder;
  const std::string file = store_file(test::tiny_spec(), {formats::int8});
  EXPECT_TRUE(is_store(folder.write("store/model.lamella", file)));
  EXPECT_TRUE(is_store(folder.path() / "store"));
  EXPECT_TRUE(is_store(folder.write("blob", file)));
  EXPECT_TRUE(is_store(folder.write("empty.lamella", "")));
  EXPECT_FALSE(is_store(folder.write("other", "GGUF and more")));
  EXPECT_FALSE(is_store(folder.write("short", "LAMELLA")));
  EXPECT_FALSE(is_store(folder.path()));
  EXPECT_FALSE(is_store(folder.path() / "absent"));
}

TEST(LoadStore, EveryWrongBitOfASegmentIsFound) {
  std::string bytes = store_file(test::tiny_spec(), {formats::f16, formats::int8_weight_only, formats::q4_0});
  const TemporaryFolder folder;
  const PackedStore store = open_store(folder.write("model.lamella", bytes));
  ResidentWeights weights = room_for(store.header);
  struct TextReader final : io::Reader {
    const std::string* text = nullptr;
    void read(const io::File&, std::uint64_t offset, std::span<std::byte> out) override {
      std::memcpy(out.data(), text->data() + offset, out.size());
    }
  } reader;
  reader.text = &bytes;
  ThreadTeam team(1);
  for (const io::StoreSegment& segment : store.header.segments)
    for (std::uint64_t at = segment.offset; at < segment.offset + segment.bytes; ++at)
      for (int bit = 0; bit < 8; ++bit) {
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << bit);
        ASSERT_THROW(load_store(weights, store, reader, team), Error) << "bit " << bit << " of byte " << at;
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << bit);
      }
  load_store(weights, store, reader, team);
}

TEST(LoadStore, DamageIsNamedByItsSegment) {
  const std::string whole = store_file(llama_like(2), {formats::bf16, formats::int8});
  const io::StoreHeader header = test::parse_store(whole);
  const TemporaryFolder folder;
  for (int threads = 1; threads <= 4; ++threads)
    for (const io::StoreWeight& weight : header.weights) {
      const io::StoreSegment& segment = header.segments[weight.segment];
      std::string bytes = whole;
      bytes[segment.offset + weight.offset + weight.bytes / 2] ^= 4;
      const PackedStore store = open_store(folder.write("model.lamella", bytes));
      ResidentWeights weights = room_for(store.header);
      io::PreadReader reader;
      ThreadTeam team(threads);
      test::expect_error(
          ErrorCode::invalid_checkpoint,
          {"model.lamella: segment " + io::segment_name(segment) + " (bytes ", "is damaged", "copy the file again"},
          [&] { load_store(weights, store, reader, team); });
    }
}

TEST(LoadStore, PaddingBetweenWeightsIsZeroWhateverTheChecksumSays) {
  std::string bytes = store_file(test::tiny_spec(), {formats::f32});
  io::StoreHeader header = test::parse_store(bytes);
  const io::StoreWeight& norm = header.weights.at(1);  // 48 bytes; the next weight begins at 64
  io::StoreSegment& segment = header.segments.at(norm.segment);
  bytes[segment.offset + norm.offset + norm.bytes] = 'x';
  segment.xxh64 = xxh64(std::as_bytes(std::span(bytes)).subspan(segment.offset, segment.bytes));
  bytes.replace(0, header.header_bytes, io::encode_store_header(header));
  const TemporaryFolder folder;
  const PackedStore store = open_store(folder.write("model.lamella", bytes));
  ResidentWeights weights = room_for(store.header);
  io::PreadReader reader;
  ThreadTeam team(2);
  test::expect_error(ErrorCode::invalid_checkpoint,
                     {"padding of segment layers.0.norms_qkv (bytes ", "is 120, expected 0"},
                     [&] { load_store(weights, store, reader, team); });
}

TEST(LoadStore, ALongSegmentIsReadByAllThreadsAtOnce) {
  constexpr int threads = 4;
  const TemporaryFolder folder;
  const std::string file = store_file(with_long_embedding(9), {formats::f32});
  const PackedStore store = open_store(folder.write("model.lamella", file));
  ResidentWeights weights = room_for(store.header);
  std::mutex mutex;
  std::condition_variable all_here;
  int reading = 0;
  bool met = true;
  Watched reader([&](std::uint64_t offset) {
    const io::StoreSegment& embedding = store.header.segments.front();
    ASSERT_EQ(embedding.segment, Segment::embedding);
    if (offset >= embedding.offset + embedding.bytes) return;
    std::unique_lock lock(mutex);
    if (++reading > threads) return;
    all_here.notify_all();
    met &= all_here.wait_for(lock, std::chrono::seconds(60), [&] { return reading >= threads; });
  });
  ThreadTeam team(threads);
  load_store(weights, store, reader, team);
  EXPECT_TRUE(met) << reading << " reads of the embedding";
  expect_loaded(weights, store.header, file);
}

class LoadStoreFaults : public ::testing::Test {
 protected:
  /// What loading on `threads` throws when `fault` happens before read number `at`.
  std::string failure(int at, int threads, ErrorCode code, const std::function<void()>& fault) {
    const PackedStore store = open_store(folder_.write("model.lamella", whole_));
    ResidentWeights weights = room_for(store.header);
    test::wait_for_file_times();
    std::atomic<int> reads{0};
    Watched reader([&](std::uint64_t) {
      if (reads++ == at) fault();
    });
    ThreadTeam team(threads);
    try {
      load_store(weights, store, reader, team);
    } catch (const Error& error) {
      EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "loaded";
    return "";
  }

  const TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_.path() / "model.lamella";
  const std::string whole_ = store_file(llama_like(2), {formats::bf16});
};

TEST_F(LoadStoreFaults, A11_AFileCutMeanwhile) {
  for (const int at : {0, 1, 20})
    for (int threads = 1; threads <= 4; ++threads)
      EXPECT_NE(failure(at, threads, ErrorCode::checkpoint_changed,
                        [&] { std::filesystem::resize_file(path_, whole_.size() - 8192); })
                    .find("model.lamella"),
                std::string::npos);
}

TEST_F(LoadStoreFaults, A11_AFileWrittenToMeanwhileIsNotCalledDamaged) {
  for (const int at : {0, 1, 20})
    for (int threads = 1; threads <= 4; ++threads)
      EXPECT_NE(failure(at, threads, ErrorCode::checkpoint_changed,
                        [&] {
                          std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
                          file.seekp(4096);
                          file << std::string(whole_.size() - 4096, 'x');
                        })
                    .find("written to"),
                std::string::npos);
}

TEST_F(LoadStoreFaults, A11_AnotherFileInItsPlace) {
  const auto other = folder_.write("other", whole_);
  failure(3, 2, ErrorCode::checkpoint_changed, [&] {
    std::filesystem::copy_file(other, folder_.path() / "third"),
        std::filesystem::rename(folder_.path() / "third", path_);
  });
}

TEST_F(LoadStoreFaults, C5_AReadThatFails) {
  for (int threads = 1; threads <= 4; ++threads)
    EXPECT_EQ(failure(5, threads, ErrorCode::io_error, [] { throw Error(ErrorCode::io_error, "no such luck"); }),
              "no such luck");
}

struct Interrupted : std::exception {};

TEST_F(LoadStoreFaults, G_AnInterruptEndsTheLoadOnAllThreads) {
  const PackedStore store = open_store(folder_.write("model.lamella", whole_));
  for (int threads = 1; threads <= 4; ++threads) {
    ResidentWeights weights = room_for(store.header);
    int calls = 0;
    std::atomic<int> reads{0};
    Watched reader([&](std::uint64_t) { ++reads; });
    ThreadTeam team(threads);
    EXPECT_THROW(load_store(weights, store, reader, team,
                            [&](std::uint64_t, std::uint64_t) {
                              if (++calls == 3) throw Interrupted();
                            }),
                 Interrupted);
    EXPECT_EQ(calls, 3);
    EXPECT_LT(reads, 2 * (3 + threads) + 2);  // a piece has two reads at most
  }
}

TEST(LoadStore, OtherFormatsThanTheStoresAreABrokenInvariant) {
  const TemporaryFolder folder;
  const PackedStore store =
      open_store(folder.write("model.lamella", store_file(test::tiny_spec(), {formats::int8_weight_only})));
  std::vector<WeightDeclaration> declared = declare_weights(store.header.model);
  for (WeightDeclaration& weight : declared)
    if (!is_vector(weight.id.slot)) weight.format = formats::int8;  // as many bytes
  ResidentWeights weights(declared);
  io::PreadReader reader;
  ThreadTeam team(1);
  test::expect_error(ErrorCode::internal, {"token_embedding"}, [&] { load_store(weights, store, reader, team); });
}

}  // namespace
}  // namespace lamella::testing
