#include "store_files.h"

#include <gtest/gtest.h>

#include <cstring>
#include <span>
#include <utility>

#include "base/checksum.h"
#include "formats.h"
#include "io/refuse.h"
#include "specs.h"

namespace lamella::test {
namespace {

/// The header's file: fill(weight, its bytes) for every weight in order, then checksums.
template <typename Fill>
std::string filled(io::StoreHeader header, Fill fill) {
  std::string file(header.file_bytes, '\0');
  for (const io::StoreWeight& weight : header.weights)
    fill(weight, std::span(file).subspan(header.segments[weight.segment].offset + weight.offset, weight.bytes));
  for (io::StoreSegment& segment : header.segments)
    segment.xxh64 = xxh64(std::as_bytes(std::span(file)).subspan(segment.offset, segment.bytes));
  const std::string head = io::encode_store_header(header);
  EXPECT_EQ(head.size(), header.header_bytes);
  return file.replace(0, head.size(), head);
}

}  // namespace

ModelSpec tiny_spec() {
  ModelSpec spec = testing::llama_like(1);
  spec.vocab = 19, spec.hidden = 12, spec.max_positions = 16;
  spec.layers[0].attention = {
      .heads = 2, .kv_heads = 1, .head_dim = 6, .scale = 0.408F, .qkv_bias = true, .rope = RopeSpec{.rotary_dim = 6}};
  spec.layers[0].mlp.intermediate = 22;
  return spec;
}

std::vector<WeightFormat> formats_in_turn(const ModelSpec& spec, const std::vector<WeightFormat>& matrices) {
  std::vector<WeightFormat> out;
  std::size_t turn = 0;
  for (const WeightDeclaration& weight : declare_weights(spec))
    out.push_back(is_vector(weight.id.slot) ? formats::f32
                                            : testing::fitting(matrices.at(turn++ % matrices.size()), weight.id.slot));
  return out;
}

std::string store_file(const ModelSpec& spec, const std::vector<WeightFormat>& matrices, std::uint64_t seed) {
  io::StoreHeader header =
      io::plan_store(spec, DataType::bf16, {{"packed from", "a \"test\"\n\xc3\xa9"}}, formats_in_turn(spec, matrices));
  std::uint64_t state = seed;
  return filled(std::move(header), [&](const io::StoreWeight&, std::span<char> room) {
    for (char& byte : room) {
      state = state * 6364136223846793005 + 1442695040888963407;
      byte = static_cast<char>(state >> 40 | 1);
    }
  });
}

std::string store_of(const ModelSpec& spec, DataType dtype, const ResidentWeights& weights) {
  std::vector<WeightFormat> formats;
  for (const WeightDeclaration& weight : weights.declarations()) formats.push_back(weight.format);
  return filled(io::plan_store(spec, dtype, {}, formats), [&](const io::StoreWeight& weight, std::span<char> room) {
    const std::span<const std::byte> bytes = weights.bytes(weight.id);
    ASSERT_EQ(bytes.size(), room.size());
    std::memcpy(room.data(), bytes.data(), bytes.size());
  });
}

std::string metadata_of(std::string_view file) {
  const auto prologue = io::decode_store_prologue(std::as_bytes(std::span(file)), file.size(), "test");
  return std::string(file.substr(io::store_prologue_bytes, prologue.metadata_bytes));
}

std::string sealed(std::string_view metadata, std::uint64_t file_bytes) {
  std::string out(
      io::as_text(io::encode_store_prologue({.version = 1,
                                             .metadata_bytes = metadata.size(),
                                             .file_bytes = file_bytes,
                                             .metadata_xxh64 = xxh64(std::as_bytes(std::span(metadata)))})));
  out += metadata;
  out.resize(io::store_header_bytes(metadata.size()));
  return out;
}

io::StoreHeader parse_store(std::string_view file) {
  return io::parse_store_header(std::as_bytes(std::span(file)), file.size(), "m.lamella");
}

}  // namespace lamella::test
