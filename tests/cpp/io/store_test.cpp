#include "io/containers/store.h"

#include <algorithm>
#include <set>

#include "base/checksum.h"
#include "checkpoint_files.h"
#include "io/containers/store_verify.h"
#include "io/refuse.h"
#include "specs.h"
#include "store_files.h"

namespace lamella::test {
namespace {

std::vector<WeightFormat> every_format() {
  return {formats::f32,  formats::f16,  formats::bf16, formats::int8_weight_only, formats::int8, formats::int4_a8,
          formats::q4_0, formats::q4_1, formats::q8_0};
}

std::vector<ModelSpec> every_spec() {
  return {tiny_spec(),
          testing::llama_like(3),
          testing::gpt2_like(),
          testing::neox_like(),
          testing::bert_like(),
          testing::mixtral_like(),
          testing::qwen_moe_like(),
          testing::gpt_moe_like(),
          testing::sigmoid_moe_like()};
}

TEST(Store, ComesBackAsItWas) {
  for (const ModelSpec& spec : every_spec()) {
    SCOPED_TRACE(spec.family);
    const std::string file = store_file(spec, every_format());
    const TemporaryFolder folder;
    const io::File opened(folder.write(std::filesystem::path(io::store_file_name), file));
    const io::StoreHeader header = io::read_store_header(opened);
    EXPECT_EQ(io::encode_store_header(header), file.substr(0, header.header_bytes));
    EXPECT_EQ(header.source.at("packed from"), "a \"test\"\n\xc3\xa9");
    EXPECT_EQ(header.dtype, DataType::bf16);
    EXPECT_EQ(header.file_bytes, file.size());
    EXPECT_EQ(header.digest, io::store_digest(header));
    io::PreadReader reader;
    for (int threads = 1; threads <= 4; ++threads) {
      ThreadTeam team(threads);
      EXPECT_NO_THROW(io::verify_store(opened, reader, header, team));
    }
  }
}

TEST(Store, PlacesFollowTheDesign) {
  for (const ModelSpec& spec : every_spec()) {
    SCOPED_TRACE(spec.family);
    const io::StoreHeader header = io::plan_store(spec, DataType::f32, {}, formats_in_turn(spec, every_format()));
    std::uint64_t end = header.header_bytes;
    for (std::size_t i = 0; i < header.segments.size(); ++i) {
      const io::StoreSegment& segment = header.segments[i];
      EXPECT_EQ(segment.offset, end);
      EXPECT_EQ(segment.offset % io::store_page, 0U);
      EXPECT_GT(segment.bytes, 0U);
      end = (segment.offset + segment.bytes + io::store_page - 1) / io::store_page * io::store_page;
    }
    EXPECT_EQ(header.file_bytes, end);
    std::uint64_t weight_end = 0;
    for (std::size_t i = 0; i < header.weights.size(); ++i) {
      const io::StoreWeight& weight = header.weights[i];
      const io::StoreSegment& segment = header.segments.at(weight.segment);
      EXPECT_EQ(weight.id.layer, segment.layer);
      EXPECT_EQ(weight.offset % io::store_line, 0U);
      if (i == 0 || header.weights[i - 1].segment != weight.segment) weight_end = 0;
      EXPECT_GE(weight.offset, weight_end);
      EXPECT_LT(weight.offset, weight_end + io::store_line);
      weight_end = weight.offset + weight.bytes;
      EXPECT_LE(weight_end, segment.bytes);
    }
    const auto declared = declare_weights(spec);
    ASSERT_EQ(header.weights.size(), declared.size());
    for (const WeightDeclaration& weight : declared)
      EXPECT_EQ(std::count_if(header.weights.begin(), header.weights.end(),
                              [&](const io::StoreWeight& w) {
                                return w.id == weight.id && w.rows == weight.rows && w.columns == weight.columns &&
                                       header.segments[w.segment].segment == weight.segment;
                              }),
                1)
          << to_string(weight.id);
  }
}

/// Bytes written down once, so that a change of the format is seen.
TEST(Store, TheFormatStays) {
  const std::string file = store_file(tiny_spec(), every_format());
  EXPECT_EQ(file.substr(0, 16), std::string("LAMELLA\0\1\0\0\0\0\0\0\0", 16));
  EXPECT_EQ(hex(xxh64(bytes_of(file))), "f078d7126e62163f");
  EXPECT_EQ(parse_store(file).digest, "sha256:bfbe6ce47ac69eecca69c9cf48c369d219501cb159b073b01d4ccbb2ba0c4d0b");
}

TEST(Store, DigestIsOfTheModelNotOfItsSource) {
  const ModelSpec spec = tiny_spec();
  const auto digest = [&](const ModelSpec& model, std::map<std::string, std::string> source, WeightFormat format,
                          std::uint64_t checksum = 0, DataType dtype = DataType::f32) {
    io::StoreHeader header = io::plan_store(model, dtype, std::move(source), formats_in_turn(model, {format}));
    header.segments[0].xxh64 = checksum;
    return io::store_digest(header);
  };
  const std::string first = digest(spec, {}, formats::int8);
  EXPECT_EQ(first, digest(spec, {{"from", std::string(4000, 'x')}}, formats::int8));
  EXPECT_NE(first, digest(spec, {}, formats::int8_weight_only));
  EXPECT_NE(first, digest(spec, {}, formats::int8, 1));
  EXPECT_NE(first, digest(spec, {}, formats::int8, 0, DataType::bf16));
  ModelSpec other = spec;
  other.layers[0].attention_norm.eps = 2e-6F;
  EXPECT_NE(first, digest(other, {}, formats::int8));
}

TEST(Store, OffsetsSettleWhateverTheTextsLength) {
  std::set<std::uint64_t> sizes;
  for (std::size_t length = 0; length <= 4096; length += 61) {
    io::StoreHeader header = io::plan_store(tiny_spec(), DataType::f16, {{"x", std::string(length, 'x')}, {"y", ""}},
                                            formats_in_turn(tiny_spec(), {formats::f32}));
    EXPECT_EQ(io::encode_store_header(header).size(), header.header_bytes);
    sizes.insert(header.header_bytes);
  }
  EXPECT_GE(sizes.size(), 2U);
}

TEST(Store, PlanRefusesWhatNoReaderTakes) {
  const ModelSpec spec = tiny_spec();
  const auto plan = [&](std::map<std::string, std::string> source) {
    return io::plan_store(spec, DataType::f32, std::move(source), formats_in_turn(spec, {formats::f32}));
  };
  const auto expect_bad = [&](const std::map<std::string, std::string>& source, const std::string& part) {
    expect_error(ErrorCode::invalid_argument, {"source", part}, [&] { plan(source); });
  };
  expect_bad({{"", "x"}}, "1 to 256 bytes");
  expect_bad({{std::string(257, 'x'), "x"}}, "1 to 256 bytes");
  expect_bad({{"x", std::string(4097, 'x')}}, "at most 4096");
  expect_bad({{"x", "\xff"}}, "UTF-8");
  std::map<std::string, std::string> many;
  for (int i = 0; i < 65; ++i) many[std::to_string(i)] = "x";
  expect_bad(many, "at most 64 texts");
  expect_error(ErrorCode::internal, {"formats"}, [&] { (void)io::plan_store(spec, DataType::f32, {}, {}); });
  const std::vector<WeightFormat> halves(declare_weights(spec).size(), formats::f16);
  expect_error(ErrorCode::internal, {"attention_norm", "float16"},
               [&] { (void)io::plan_store(spec, DataType::f32, {}, halves); });
  // What became wrong after planning is found before it is written.
  io::StoreHeader header = plan({});
  header.segments[1].bytes += 1;
  expect_error(ErrorCode::internal, {"cannot be read back", "segments[1]"},
               [&] { (void)io::encode_store_header(header); });
}

}  // namespace
}  // namespace lamella::test
