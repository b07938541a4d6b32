// Stores whose checksums are right and whose words are wrong.
#include "base/check.h"
#include "base/checksum.h"
#include "checkpoint_files.h"
#include "specs.h"
#include "store_files.h"

namespace lamella::test {
namespace {

struct Wrong {
  std::string from, to;  // the first `from` in the metadata becomes `to`
  std::vector<std::string> parts;
  ErrorCode code = ErrorCode::invalid_checkpoint;
};

const std::string& good() {
  static const std::string file =
      store_file(tiny_spec(), {formats::f32, formats::int8_weight_only, formats::q4_0, formats::bf16});
  return file;
}

/// The good file's header with one text changed and all checksums right again.
std::string changed(const Wrong& wrong) {
  std::string text = metadata_of(good());
  const std::size_t at = text.find(wrong.from);
  EXPECT_NE(at, std::string::npos) << wrong.from << "\nis not in\n" << text;
  if (at != std::string::npos) text.replace(at, wrong.from.size(), wrong.to);
  std::string file = sealed(text, good().size());
  EXPECT_EQ(file.size(), parse_store(good()).header_bytes) << "the header's own size changed";
  return file + good().substr(std::min(file.size(), good().size()));
}

void expect_wrong(const std::vector<Wrong>& table) {
  for (const Wrong& wrong : table) {
    SCOPED_TRACE(wrong.from + " -> " + wrong.to);
    std::vector<std::string> parts = wrong.parts;
    parts.insert(parts.end(), {"m.lamella: ", "pack the model again"});
    expect_error(wrong.code, parts, [&] { parse_store(changed(wrong)); });
  }
}

std::string text_between(const std::string& from, const std::string& to) {
  const std::string text = metadata_of(good());
  const std::size_t begin = text.find(from);
  return text.substr(begin, text.find(to, begin) - begin);
}

TEST(StoreRefusal, Whole) {
  expect_wrong({
      {"{\"layout\"", "[{\"layout\"", {"JSON error"}},
      {"{\"layout\"", "{\"layout\":\"cpu-panels-1\",\"layout\"", {"twice", "[J2]"}},
      {"\"layout\":\"cpu-panels-1\"", "\"lay-out\":\"cpu-panels-1\"", {"unknown key \"lay-out\""}},
      {"\"layout\":\"cpu-panels-1\",", "", {"no key \"layout\""}},
      {"\"cpu-panels-1\"", "1", {"layout at byte 74", "expected a text"}},
      {"cpu-panels-1", "cuda-rows-1", {"\"cuda-rows-1\"", "reads \"cpu-panels-1\""}, ErrorCode::unsupported_model},
      {"\"model\":{", "\"model\":7,\"more\":{", {"unknown key \"more\""}},
      {"\"dtype\":\"bf16\"", "\"dtype\":\"i32\"", {"dtype at byte", "\"i32\" is unknown"}},
      {"\"dtype\":\"bf16\",", "", {"no key \"dtype\""}},
      {"\"dtype\":\"bf16\"", "\"dtype\":\"f16\"", {"the digest is"}},
      {"\"vocab\":19", "\"vocab\":\"19\"", {"vocab is not a whole number"}},
      {"\"kv_heads\":1", "\"kv_heads\":3", {"kv_heads"}},
      {"\"window\":0", "\"window\":4", {"the digest is"}},
      {"\"window\":0", "\"window\":-4", {"window"}},
      {"\"logit_softcap\":0", "\"logit_softcap\":4", {"soft-capping"}, ErrorCode::unsupported_model},
      {"]}\n", "]}x", {"text after the end"}},
      {"\"digest\":\"sha256:", "\"digest\":\"sha255:", {"the digest is \"sha255:", "give \"sha256:"}},
      {text_between("\"digest\":\"", ","), "\"digest\":null", {"digest at byte", "expected a text"}},
  });
}

TEST(StoreRefusal, Source) {
  const std::string source = text_between("\"source\":", ",\n\"digest\"");
  std::string many = "\"source\":{";
  for (int i = 0; i < 65; ++i) many += concat(i == 0 ? "" : ",", "\"", i, "\":\"\"");
  expect_wrong({
      {source, "\"source\":[]", {"source at byte", "expected an object of texts"}},
      {source, "\"source\":{\"x\":1}", {"source at byte", "expected a text"}},
      {source, "\"source\":{\"\":\"x\"}", {"a name of 0"}},
      {source, "\"source\":{\"" + std::string(257, 'k') + "\":\"x\"}", {"a name of 257"}},
      {source, many + "}", {"65 texts", "at most 64"}},
      {"a \\\"test", "\xff", {"invalid UTF-8"}},
  });
}

TEST(StoreRefusal, Segments) {
  const io::StoreHeader header = parse_store(good());
  const auto offset = [&](std::size_t i) { return concat("\"offset\":", header.segments[i].offset); };
  const auto moved = [&](std::size_t i, std::int64_t by) {
    return concat("\"offset\":", header.segments[i].offset + static_cast<std::uint64_t>(by));
  };
  const std::string hash = "\"xxh64\":\"", qkv = text_between("{\"layer\":0,\"segment\":\"norms_qkv\"", "\n"),
                    output = text_between("{\"layer\":0,\"segment\":\"attention_output\"", "\n"),
                    head = text_between(",\n{\"layer\":-1,\"segment\":\"head\"", "]");
  expect_wrong({
      {"\"segments\":[", "\"segments\":{\"x\":[", {"JSON error"}},
      {"{\"layer\":-1,", "7,{\"layer\":-1,", {"segments[0] at byte", "expected an object"}},
      {"{\"layer\":-1,", "{", {"segments[0] at byte", "no key \"layer\""}},
      {"{\"layer\":-1,", "{\"layer\":-1,\"size\":1,", {"segments[0] at byte", "unknown key \"size\""}},
      {"\"layer\":-1", "\"layer\":-2", {"segments[0].layer at byte", "whole number"}},
      {"\"layer\":-1", "\"layer\":0", {"segments[0] is layers.0.embedding, expected embedding"}},
      {"\"layer\":0", "\"layer\":1", {"segments[1] is layers.1.norms_qkv, expected layers.0.norms_qkv"}},
      {"\"layer\":0", "\"layer\":2147483648", {"segments[1].layer at byte", "0 to 2147483647"}},
      {"\"norms_qkv\"", "\"experts\"", {"segments[1].segment at byte", "\"experts\" is unknown to this version"}},
      {"\"norms_qkv\"", "\"experts.01\"", {"segments[1].segment at byte", "\"experts.01\" is unknown to this version"}},
      {"\"norms_qkv\"", "\"experts.1\"", {"segments[1] is layers.0.experts.1, expected layers.0.norms_qkv"}},
      {"\"norms_qkv\"", "\"mlp_up\"", {"segments[1] is layers.0.mlp_up, expected layers.0.norms_qkv"}},
      {offset(0), "\"offset\":0", {"segments[0] has the offset 0, expected 8192 for embedding"}},
      {offset(1), moved(1, 1), {"segments[1] has the offset", "expected"}},
      {offset(1), moved(1, 4096), {"segments[1] has the offset", "for layers.0.norms_qkv"}},
      {offset(1), moved(1, -4096), {"segments[1] has the offset", "for layers.0.norms_qkv"}},
      {offset(1), "\"offset\":18446744073709551615", {"segments[1] has the offset 18446744073709551615"}},
      {offset(1), "\"offset\":18446744073709551616", {"[J4]"}},
      {offset(1), "\"offset\":-4096", {"segments[1].offset at byte", "whole number"}},
      {offset(1), "\"offset\":4096.0", {"segments[1].offset at byte", "whole number"}},
      {concat("\"bytes\":", header.segments[2].bytes, ",\"xxh64\""),
       concat("\"bytes\":", header.segments[2].bytes + 1, ",\"xxh64\""),
       {"segments[2] has bytes", "for layers.0.attention_output"}},
      {concat("\"bytes\":", header.segments[2].bytes, ",\"xxh64\""),
       "\"bytes\":0,\"xxh64\"",
       {"segments[2] has bytes 0, expected"}},
      {hash, hash + "0", {"segments[0].xxh64 at byte", "16 lower-case hexadecimal digits"}},
      {hash + hex(header.segments[0].xxh64), hash + "0123456789ABCDEF", {"segments[0].xxh64 at byte", "lower-case"}},
      {hash + hex(header.segments[0].xxh64), hash + "-123456789abcdef", {"segments[0].xxh64 at byte", "lower-case"}},
      {hash + hex(header.segments[0].xxh64), hash + "0123456789abcdef", {"the digest is"}},
      {head, "", {"the number of segments is 5, expected 6"}},
      {head, head + head, {"the number of segments is 7, expected 6"}},
      {qkv + "\n" + output, output + "\n" + qkv, {"segments[1] is layers.0.attention_output"}},
  });
}

TEST(StoreRefusal, Weights) {
  const io::StoreHeader header = parse_store(good());
  const std::string query = text_between("{\"name\":\"layers.0.query\"", "\n"),
                    bias = text_between("{\"name\":\"layers.0.query_bias\"", "\n"),
                    norm = text_between(",\n{\"name\":\"final_norm\"", "]}\n");
  const io::StoreWeight& second = header.weights.at(2);
  ASSERT_EQ(to_string(second.id), "layers.0.query");
  const std::string named = "\"name\":\"layers.0.query\",";
  const auto query_with = [&](const std::string& from, const std::string& to) {
    const std::size_t at = query.find(from);
    EXPECT_NE(at, std::string::npos) << from << " in " << query;
    return std::string(query).replace(at, from.size(), to);
  };
  expect_wrong({
      {"\"weights\":[", "\"weights\":[0,", {"weights[0] at byte", "expected an object"}},
      {named, "\"name\":7,", {"weights[2].name at byte", "expected a text"}},
      {named, "\"name\":\"\",", {"no weight has the name \"\""}},
      {named, "\"name\":\"layers.0.gate\",", {"no weight has the name \"layers.0.gate\""}},
      {named, "\"name\":\"layers.0.experts.x.mlp_up\",", {"no weight has the name \"layers.0.experts.x.mlp_up\""}},
      {named, "\"name\":\"layers.0.experts.01.mlp_up\",", {"no weight has the name \"layers.0.experts.01.mlp_up\""}},
      {named, "\"name\":\"layers.0.experts.1.mlp_up\",", {"is layers.0.experts.1.mlp_up, expected layers.0.query"}},
      {named, "\"name\":\"layers.00.query\",", {"no weight has the name \"layers.00.query\""}},
      {named, "\"name\":\"layers.-1.query\",", {"no weight has the name"}},
      {named, "\"name\":\"layers.0:query\",", {"no weight has the name"}},
      {named, "\"name\":\"layers.99999999999.query\",", {"no weight has the name"}},
      {named, "\"name\":\"layers.\",", {"no weight has the name"}},
      {named, "\"name\":\"layers.0\",", {"no weight has the name"}},
      {named, "\"name\":\"layers.1.query\",", {"weights[2] is layers.1.query, expected layers.0.query"}},
      {named, "\"name\":\"layers.0.key\",", {"weights[2] is layers.0.key, expected layers.0.query", "stands once"}},
      {named, "\"name\":\"query\",", {"weights[2] is query, expected layers.0.query"}},
      {query + "\n" + bias, bias + "\n" + query, {"weights[2] is layers.0.query_bias"}},
      {query + "\n", "", {"weights[2] is layers.0.query_bias, expected layers.0.query"}},
      {query + "\n", query + "\n" + query + "\n", {"weights[3] is layers.0.query, expected layers.0.query_bias"}},
      {norm, "", {"but the model 14: final_norm is missing"}},
      {norm, norm + norm, {"weights[14] is final_norm, but the model has only 14 weights"}},
      {query,
       query_with("\"rows\":12", "\"rows\":13"),
       {"weights[2] (layers.0.query) has the shape [13, 12], expected [12, 12]"}},
      {query, query_with("\"columns\":12", "\"columns\":0"), {"has the shape [12, 0], expected [12, 12]"}},
      {query, query_with("\"columns\":12", "\"columns\":9223372036854775808"), {"weights[2].columns at byte"}},
      {query,
       query_with("\"bytes\":", "\"bytes\":1"),
       {"weights[2] (layers.0.query) has bytes 1", "for 12 x 12 in int8"}},
      {query, query_with("\"offset\":64", "\"offset\":128"), {"(layers.0.query) has the offset 128, expected 64"}},
      {query, query_with("\"offset\":64", "\"offset\":65"), {"has the offset 65, expected 64"}},
      {query, query_with("\"offset\":64", "\"offset\":0"), {"has the offset 0, expected 64"}},
      {query, query_with("\"offset\":64", "\"offset\":18446744073709551615"), {"has the offset 18446744073709551615"}},
      {query, query_with("\"segment\":1", "\"segment\":2"), {"is in segment 2, expected 1"}},
      {query, query_with("\"segment\":1", "\"segment\":4294967295"), {"is in segment 4294967295"}},
      {query, query_with("\"segment\":1", "\"segment\":4294967296"), {"weights[2].segment at byte"}},
      {query, query_with("\"rows\":12,", ""), {"no key \"rows\""}},
      {query, query_with("\"rows\":12,", "\"rows\":12,\"shard\":0,"), {"unknown key \"shard\""}},
  });
}

TEST(StoreRefusal, Formats) {
  const std::string query = text_between("{\"name\":\"layers.0.query\"", "\n"),
                    norm = text_between("{\"name\":\"layers.0.attention_norm\"", "\n"),
                    embedding = text_between("{\"name\":\"token_embedding\"", "\n");
  const auto with = [](std::string in, const std::string& from, const std::string& to) {
    const std::size_t at = in.find(from);
    EXPECT_NE(at, std::string::npos) << from << " in " << in;
    return in.replace(at, from.size(), to);
  };
  expect_wrong({
      {query,
       with(query, "\"i8\"", "\"fp8\""),
       {"weights[2].format.element at byte", "\"fp8\" is unknown to this version"}},
      {query, with(query, "\"i8\"", "8"), {"weights[2].format.element at byte", "expected a text"}},
      {query, with(query, "\"i8\"", "\"i4\""), {"weights[2].format at byte", "int4 needs groups"}},
      {query, with(query, "\"group\":0", "\"group\":33"), {"weights[2].format at byte", "multiple of 32"}},
      {query, with(query, "\"group\":0", "\"group\":-32"), {"weights[2].format.group at byte", "whole number"}},
      {query, with(query, "\"group\":0", "\"group\":32"), {"a group a float16 one"}},
      {query, with(query, "\"scale\":\"f32\"", "\"scale\":\"none\""), {"a whole row has a float32 scale"}},
      {query, with(query, "\"scale\":\"f32\"", "\"scale\":\"e8m0\""), {"weights[2].format.scale at byte", "unknown"}},
      {query, with(query, "\"offset\":\"none\"", "\"offset\":\"zero\""), {"an offset needs groups"}},
      {query, with(query, "\"offset\":\"none\",", ""), {"weights[2].format at byte", "no key \"offset\""}},
      {query, with(query, "\"input\":\"dtype\"", "\"input\":\"int4\""), {"weights[2].format.input at byte", "unknown"}},
      {query,
       with(query, "\"input\":\"dtype\"", "\"input\":\"int8\""),
       {"the digest is"}},  // fits, but is another model
      {query,
       with(query, "\"element\":\"i8\",\"group\":0,\"scale\":\"f32\"",
            "\"element\":\"f16\",\"group\":0,\"scale\":\"none\""),
       {"weights[2] (layers.0.query) has bytes", "in float16"}},
      {embedding,
       embedding.substr(0, embedding.find("\"format\"")) +
           R"("format":{"element":"i8","group":0,"scale":"f32","offset":"none","input":"int8_rotated"}})" +
           (embedding.ends_with(',') ? "," : ""),
       {"token_embedding cannot be int8, rotated int8 inputs", "looked up"}},
      {norm, with(norm, "\"f32\"", "\"f16\""), {"(layers.0.attention_norm) has the format float16, expected float32"}},
  });
}

TEST(StoreRefusal, Prologue) {
  using io::StorePrologue;
  struct Case {
    void (*change)(StorePrologue&);
    std::vector<std::string> parts;
    ErrorCode code = ErrorCode::invalid_checkpoint;
  };
  const std::vector<Case> table{
      {[](StorePrologue& p) { p.version = 0; }, {"version 0, which never was"}},
      {[](StorePrologue& p) { p.version = 2; }, {"version 2", "reads 1", "newer"}, ErrorCode::unsupported_model},
      {[](StorePrologue& p) { p.version = ~0U; }, {"version 4294967295"}, ErrorCode::unsupported_model},
      {[](StorePrologue& p) { p.features = 1; }, {"features unknown", ": 0: "}, ErrorCode::unsupported_model},
      {[](StorePrologue& p) { p.features = std::uint64_t{1} << 63 | 1 << 17; },
       {"features unknown", ": 17, 63: "},
       ErrorCode::unsupported_model},
      {[](StorePrologue& p) { p.metadata_bytes = 0; }, {"metadata have 0 bytes"}},
      {[](StorePrologue& p) { p.metadata_bytes = 100'000'001; }, {"100000001 bytes", "100000000 are allowed"}},
      {[](StorePrologue& p) { p.metadata_bytes = ~std::uint64_t{0}; }, {"18446744073709551615 bytes"}},
      {[](StorePrologue& p) { p.metadata_bytes = 99'999'999; }, {"need 100003840 bytes", "the file has only"}},
      {[](StorePrologue& p) { p.metadata_bytes -= 1; }, {"metadata", "are damaged"}},
      {[](StorePrologue& p) { p.metadata_xxh64 += 1; }, {"metadata", "are damaged", "copy the file again"}},
      {[](StorePrologue& p) { p.file_bytes += 4096; }, {"by its own account", "incomplete?"}},
      {[](StorePrologue& p) { p.file_bytes -= 4096; }, {"by its own account", "trailing bytes"}},
  };
  for (const Case& wrong : table) {
    SCOPED_TRACE(wrong.parts.front());
    std::string file = good();
    StorePrologue prologue = io::decode_store_prologue(bytes_of(file), file.size(), "test");
    wrong.change(prologue);
    const auto bytes = io::encode_store_prologue(prologue);
    file.replace(0, bytes.size(), reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::vector<std::string> parts = wrong.parts;
    parts.insert(parts.end(), {"m.lamella: ", "pack the model again"});
    expect_error(wrong.code, parts, [&] { parse_store(file); });
  }
  for (const std::size_t reserved : {12U, 15U, 48U, 55U}) {
    std::string file = good();
    file[reserved] = 1;
    const std::uint64_t sum = xxh64(bytes_of(file).first(56));
    file.replace(56, 8, raw(sum));
    expect_error(ErrorCode::invalid_checkpoint, {"expected 0", "pack the model again"}, [&] { parse_store(file); });
  }
}

TEST(StoreRefusal, WhatIsNoStore) {
  const auto expect_bad = [](const std::string& file, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_checkpoint, parts, [&] { parse_store(file); });
  };
  expect_bad("", {"the file has only 0", "copy the file again"});
  expect_bad("LAMELLA", {"the file has only 7"});
  expect_bad("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", {"git lfs pull"});
  expect_bad(safetensors("{" + std::string(80, ' ') + "}"), {"not a packed store", "lamella pack"});
  expect_bad(std::string(64, '\0'), {"not a packed store"});
}

/// A model beyond any file, told before anything is allocated.
TEST(StoreRefusal, P4_SizesThatOverflow) {
  ModelSpec spec = testing::llama_like(1);
  LayerSpec& layer = spec.layers[0];
  spec.vocab = 2147483647, spec.hidden = 131072, layer.mlp.intermediate = 2147483647;
  layer.attention.heads = layer.attention.kv_heads = 32767, layer.attention.head_dim = 65536;
  spec.layers.assign(4096, spec.layers[0]);
  EXPECT_NO_THROW(validate(spec));
  expect_error(ErrorCode::invalid_checkpoint, {"a packed store's size", "overflows"},
               [&] { (void)io::plan_store(spec, DataType::f32, {}, formats_in_turn(spec, {formats::f32})); });
}

}  // namespace
}  // namespace lamella::test
