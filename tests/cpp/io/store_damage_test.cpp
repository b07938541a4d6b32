// A store that lost or gained bytes, or in which any one bit is wrong.
#include <cstring>
#include <functional>

#include "base/check.h"
#include "base/checksum.h"
#include "checkpoint_files.h"
#include "io/containers/store_verify.h"
#include "store_files.h"

namespace lamella::test {
namespace {

std::string small_store() { return store_file(tiny_spec(), {formats::f32, formats::int8_weight_only, formats::q4_0}); }

/// Gives the bytes of a string in place of a file's.
class TextReader final : public io::Reader {
 public:
  explicit TextReader(const std::string& text) : text_(text) {}
  void read(const io::File&, std::uint64_t offset, std::span<std::byte> out) override {
    ASSERT_LE(offset + out.size(), text_.size());
    std::memcpy(out.data(), text_.data() + offset, out.size());
  }

 private:
  const std::string& text_;
};

bool refused(ErrorCode& code, std::size_t& message_bytes, const std::function<void()>& action) {
  try {
    action();
    return false;
  } catch (const Error& error) {
    code = error.code();
    message_bytes = std::string_view(error.what()).size();
    return true;
  }
}

TEST(StoreDamage, EveryTruncation) {
  const std::string whole = small_store();
  const TemporaryFolder folder;
  const auto path = folder.write("m.lamella", whole);
  for (std::size_t size = whole.size(); size-- > 0;) {
    std::filesystem::resize_file(path, size);
    const io::File file(path);
    ErrorCode code{};
    std::size_t message_bytes = 0;
    ASSERT_TRUE(refused(code, message_bytes, [&] { (void)io::read_store_header(file); })) << size;
    ASSERT_EQ(code, ErrorCode::invalid_checkpoint) << size;
  }
  std::printf("  %zu lengths\n", whole.size());
}

TEST(StoreDamage, A11_AHeaderWrittenToMeanwhileIsNotCalledDamaged) {
  const std::string whole = small_store();
  const TemporaryFolder folder;
  const io::File file(folder.write("m.lamella", whole));
  wait_for_file_times();
  std::string damaged = whole;
  damaged[io::store_prologue_bytes + 10] ^= 1;
  folder.write("m.lamella", damaged);
  expect_error(ErrorCode::checkpoint_changed, {"m.lamella"}, [&] { (void)io::read_store_header(file); });
}

TEST(StoreDamage, AHeaderThatGrewSinceItsSizeWasReadIsRefused) {
  const std::string whole = small_store();
  const std::uint64_t header_bytes = parse_store(whole).header_bytes;
  const auto head = bytes_of(whole).first(header_bytes - io::store_page / 2);
  expect_error(ErrorCode::invalid_checkpoint, {"m.lamella", std::to_string(header_bytes)},
               [&] { (void)io::parse_store_header(head, whole.size(), "m.lamella"); });
}

TEST(StoreDamage, TrailingBytes) {
  const std::string whole = small_store();
  for (const std::size_t more : {1U, 4095U, 4096U, 100'000U})
    expect_error(ErrorCode::invalid_checkpoint, {"trailing bytes"},
                 [&] { parse_store(whole + std::string(more, '\0')); });
}

TEST(StoreDamage, EveryBit) {
  std::string bytes = small_store();
  const TemporaryFolder folder;
  const io::File file(folder.write("m.lamella", bytes));  // for its size and name: the bytes come from the reader
  const io::StoreHeader header = parse_store(bytes);
  TextReader reader(bytes);
  const auto verify_all = [&] {
    for (std::size_t i = 0; i < header.segments.size(); ++i) io::verify_segment(file, reader, header, i);
  };
  ASSERT_NO_THROW(verify_all());
  for (std::size_t at = 0; at < bytes.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[at] = static_cast<char>(bytes[at] ^ 1 << bit);
      ErrorCode code{};
      std::size_t message_bytes = 0;
      // Opening reads the header and nothing else, so that one reading of the good header serves all bits behind it.
      const bool found = at < header.header_bytes ? refused(
                                                        code, message_bytes, [&] { parse_store(bytes); })
                                                  : refused(code, message_bytes, verify_all);
      ASSERT_TRUE(found) << "bit " << bit << " of byte " << at;
      ASSERT_EQ(code, ErrorCode::invalid_checkpoint) << "bit " << bit << " of byte " << at;
      ASSERT_LT(message_bytes, 512U);
      bytes[at] = static_cast<char>(bytes[at] ^ 1 << bit);
    }
  ASSERT_NO_THROW(verify_all());
  std::printf("  %zu bits\n", 8 * bytes.size());
}

class DamagedStore : public ::testing::Test {
 protected:
  /// Writes the store with the byte at `at` changed and verifies it on `threads`.
  void expect_damage(std::uint64_t at, int threads, const std::vector<std::string>& parts) {
    std::string bytes = whole_;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
    const io::File file(folder_.write("m.lamella", bytes));
    const io::StoreHeader header = io::read_store_header(file);
    ThreadTeam team(threads);
    io::PreadReader reader;
    expect_error(ErrorCode::invalid_checkpoint, parts, [&] { io::verify_store(file, reader, header, team); });
  }

  const TemporaryFolder folder_;
  const std::string whole_ = small_store();
  const io::StoreHeader header_ = parse_store(whole_);
};

TEST_F(DamagedStore, NamesTheSegment) {
  for (int threads = 1; threads <= 4; ++threads)
    for (const io::StoreSegment& segment : header_.segments) {
      const std::string name = io::segment_name(segment),
                        place =
                            concat("(bytes ", segment.offset, " to ", segment.offset + segment.bytes, " of the file)");
      expect_damage(segment.offset, threads,
                    {"m.lamella", concat("segment ", name, " ", place), "its XXH64", "copy the file"});
      if (segment.bytes % io::store_page != 0)
        expect_damage(segment.offset + segment.bytes, threads,
                      {"byte " + std::to_string(segment.offset + segment.bytes) + ", padding of segment " + name,
                       "is 16, expected 0", "copy the file again"});
    }
}

TEST_F(DamagedStore, PaddingBetweenWeightsIsZeroWhateverTheChecksumSays) {
  std::string bytes = whole_;
  io::StoreHeader header = header_;
  const io::StoreWeight& first = header.weights.at(1);  // a norm of 48 bytes; the next weight begins at 64
  io::StoreSegment& segment = header.segments.at(first.segment);
  ASSERT_EQ(first.bytes % io::store_line, 48U);
  bytes[segment.offset + first.offset + first.bytes] = 'x';
  segment.xxh64 = xxh64(bytes_of(bytes).subspan(segment.offset, segment.bytes));
  bytes.replace(0, header.header_bytes, io::encode_store_header(header));
  const io::File file(folder_.write("m.lamella", bytes));
  io::PreadReader reader;
  expect_error(ErrorCode::invalid_checkpoint, {"padding of segment layers.0.norms_qkv", "is 120, expected 0"},
               [&] { io::verify_segment(file, reader, io::read_store_header(file), first.segment); });
}

TEST_F(DamagedStore, OfSeveralTheFirstIsNamed) {
  std::string bytes = whole_;
  for (std::size_t i = 2; i < header_.segments.size(); ++i) bytes[header_.segments[i].offset] ^= 1;
  const io::File file(folder_.write("m.lamella", bytes));
  io::PreadReader reader;
  for (int round = 0; round < 20; ++round) {
    ThreadTeam team(round % 4 + 1);
    expect_error(ErrorCode::invalid_checkpoint, {"segment layers.0.attention_output "},
                 [&] { io::verify_store(file, reader, io::read_store_header(file), team); });
  }
}

TEST_F(DamagedStore, A11_ChangedWhileItIsVerified) {
  const auto path = folder_.write("m.lamella", whole_);
  const io::File file(path);
  const io::StoreHeader header = io::read_store_header(file);
  io::PreadReader reader;
  ThreadTeam team(2);
  EXPECT_NO_THROW(io::verify_store(file, reader, header, team));
  std::filesystem::resize_file(path, header.file_bytes - 4096);
  expect_error(ErrorCode::checkpoint_changed, {"m.lamella"}, [&] { io::verify_store(file, reader, header, team); });
}

TEST_F(DamagedStore, A11_AFileWrittenToMeanwhileIsNotCalledDamaged) {
  const auto path = folder_.write("m.lamella", whole_);
  const io::File file(path);
  const io::StoreHeader header = io::read_store_header(file);
  io::PreadReader reader;
  ThreadTeam team(2);
  wait_for_file_times();
  std::filesystem::resize_file(path, header.header_bytes);
  std::filesystem::resize_file(path, whole_.size());  // zeros where the segments were
  expect_error(ErrorCode::checkpoint_changed, {"m.lamella", "written to"},
               [&] { io::verify_store(file, reader, header, team); });
}

TEST_F(DamagedStore, ProgressIsToldAndMayEndIt) {
  const io::File file(folder_.write("m.lamella", whole_));
  io::PreadReader reader;
  struct Interrupted : std::exception {};
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadTeam team(threads);
    std::uint64_t last = 0;
    io::verify_store(file, reader, header_, team, [&](std::uint64_t done, std::uint64_t total) {
      EXPECT_GT(done, last);
      EXPECT_EQ(total, whole_.size() - header_.header_bytes);
      last = done;
    });
    EXPECT_EQ(last, whole_.size() - header_.header_bytes);
    int calls = 0;
    EXPECT_THROW(io::verify_store(file, reader, header_, team,
                                  [&](std::uint64_t, std::uint64_t) {
                                    if (++calls == 2) throw Interrupted();
                                  }),
                 Interrupted);
    EXPECT_EQ(calls, 2);
  }
}

/// Segments longer than what one step reads.
TEST_F(DamagedStore, LongSegments) {
  ModelSpec spec = tiny_spec();
  spec.vocab = 50'000;  // 50,000 rows of 12 fp32: 2.4 MB
  std::string bytes = store_file(spec, {formats::f32});
  const io::File file(folder_.write("long", bytes));
  const io::StoreHeader header = io::read_store_header(file);
  TextReader reader(bytes);
  const io::StoreSegment& segment = header.segments.front();
  ASSERT_GT(segment.bytes, std::uint64_t{2} << 20);
  EXPECT_NO_THROW(io::verify_segment(file, reader, header, 0));
  for (const std::uint64_t at :
       {std::uint64_t{0}, (std::uint64_t{1} << 20) - 1, std::uint64_t{1} << 20, segment.bytes - 1}) {
    bytes[segment.offset + at] ^= 1;
    expect_error(ErrorCode::invalid_checkpoint, {"segment embedding"},
                 [&] { io::verify_segment(file, reader, header, 0); });
    bytes[segment.offset + at] ^= 1;
  }
}

}  // namespace
}  // namespace lamella::test
