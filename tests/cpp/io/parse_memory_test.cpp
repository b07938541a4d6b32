// P3: parsing takes at most 8 times the input and 1 MiB. Every allocation of this program is counted; the inputs are
// the ones that make the most of each byte.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/check.h"
#include "counting_new.h"
#include "io/containers/gguf.h"
#include "io/containers/json.h"
#include "io/containers/safetensors.h"
#include "io/containers/safetensors_index.h"
#include "io/containers/spec_json.h"
#include "lamella/error.h"
#include "specs.h"
#include "store_files.h"

namespace lamella::test {
namespace {

template <typename Parse>
void expect_bounded(const std::string& input, Parse parse) {
  const testing::HeapPeak peak;
  try {
    parse();
  } catch (const Error& error) {
    std::printf("  (refused: %.60s)\n", error.what());
  }
  const std::size_t used = peak.bytes();
  std::printf("  input %zu bytes, peak %zu bytes: factor %.2f\n", input.size(), used,
              static_cast<double>(used) / static_cast<double>(input.size()));
  EXPECT_LE(used, 8 * input.size() + (1u << 20));
}

std::string repeat(const std::string& unit, int count, const std::string& between) {
  std::string out;
  for (int i = 0; i < count; ++i) out += (i == 0 ? "" : between) + unit;
  return out;
}

template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

void expect_json_bounded(const std::string& text) {
  expect_bounded(text, [&] { const io::json::Document document(text, "x"); });
}

TEST(ParseMemory, P3_Json) {
  expect_json_bounded("[" + repeat("0", 1'000'000, ",") + "]");
  expect_json_bounded("[" + repeat("[]", 1'000'000, ",") + "]");
  expect_json_bounded(std::string(2'000'000, ','));
  expect_json_bounded("\"" + std::string(2'000'000, ',') + "\"");
  std::string keys = "{";
  for (int i = 0; i < 400'000; ++i) keys += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":0";
  expect_json_bounded(keys + "}");
}

TEST(ParseMemory, P3_Safetensors) {
  const auto check_header = [](const std::string& text) {
    const std::string file = raw<std::uint64_t>(text.size()) + text;
    expect_bounded(file, [&] { (void)io::parse_safetensors_header(std::as_bytes(std::span(file)), file.size(), "x"); });
  };
  std::string tensors = "{", metadata = "{\"__metadata__\":{";
  for (int i = 0; i < 200'000; ++i) {
    tensors += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
               R"(":{"dtype":"U8","shape":[0,1,1,1,1,1,1,1],"data_offsets":[0,0]})";
    metadata += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":\"\"";
    if (i == 4095) check_header(metadata + "}}");
  }
  check_header(tensors + "}");
  check_header(metadata + "}}");
}

TEST(ParseMemory, P3_Index) {
  std::string one = "{\"weight_map\":{", many = one;
  for (int i = 0; i < 400'000; ++i) {
    const std::string name = (i == 0 ? "\"" : ",\"") + std::to_string(i);
    one += name + "\":\"s\"";
    many += name + "\":\"" + std::to_string(i) + "\"";
    if (i == 4095) expect_bounded(many, [&] { (void)io::parse_safetensors_index(many + "}}", "x"); });
  }
  one += "}}", many += "}}";
  expect_bounded(one, [&] { (void)io::parse_safetensors_index(one, "x"); });
  expect_bounded(many, [&] { (void)io::parse_safetensors_index(many, "x"); });
}

TEST(ParseMemory, P3_Gguf) {
  const auto check_head = [](std::uint64_t tensors, std::uint64_t pairs, const std::string& body,
                             std::uint64_t file_size = 0) {
    const std::string file = "GGUF" + raw<std::uint32_t>(3) + raw(tensors) + raw(pairs) + body;
    expect_bounded(file, [&] {
      (void)io::parse_gguf(std::as_bytes(std::span(file)), std::max<std::uint64_t>(file_size, file.size()), "x");
    });
  };
  const auto array = [](std::uint32_t type, std::uint64_t count, const std::string& elements) {
    return raw<std::uint64_t>(1) + "k" + raw<std::uint32_t>(9) + raw(type) + raw(count) + elements;
  };
  constexpr std::size_t million = 1'000'000;
  check_head(0, 1, array(0, million, std::string(million, 'x')));
  check_head(0, 1, array(8, million, std::string(8 * million, '\0')));
  check_head(0, 1, array(8, 300'000, repeat(raw<std::uint64_t>(16) + std::string(16, 's'), 300'000, "")));
  check_head(0, 1, array(9, 500'000, repeat(raw<std::uint32_t>(0) + raw<std::uint64_t>(0), 500'000, "")));
  check_head(0, 1, array(8, 12'000'000, ""), std::uint64_t{1} << 40);  // promised, not delivered
  std::string pairs, tensors;
  for (int i = 0; i < 65'536; ++i)
    pairs += raw<std::uint64_t>(3) + std::string{char('!' + i % 64), char('!' + i / 64 % 64), char('!' + i / 4096)} +
             raw<std::uint32_t>(0) + "x";
  check_head(0, 65'536, pairs);
  for (int i = 0; i < 300'000; ++i) {
    const std::string name = std::to_string(i);
    tensors += raw<std::uint64_t>(name.size()) + name + raw<std::uint32_t>(1) + raw<std::uint64_t>(0) +
               raw<std::uint32_t>(0) + raw<std::uint64_t>(0);
  }
  check_head(300'000, 0, tensors);
}

/// A store's head with other lists in it than its own.
class StoreHead {
 public:
  explicit StoreHead(const io::StoreHeader& header)
      : whole_(io::encode_store_header(header)), file_bytes_(header.file_bytes) {
    const std::string text =
        whole_.substr(io::store_prologue_bytes, whole_.find('\0', io::store_prologue_bytes) - io::store_prologue_bytes);
    const std::size_t segments = text.find(segments_key) + segments_key.size(), weights = text.find(weights_key);
    front_ = text.substr(0, segments);
    segments_ = text.substr(segments, weights - segments);
    weights_ = text.substr(weights + weights_key.size(), text.rfind("]}") - weights - weights_key.size());
  }

  void check() const { check(whole_, file_bytes_); }
  void check_with_segments(const std::string& list) const {
    check_text(concat(front_, list, weights_key, weights_, "]}"));
  }
  void check_with_weights(const std::string& list) const {
    check_text(concat(front_, segments_, weights_key, list, "]}"));
  }
  /// `from` stands in the model, or before it.
  void check_with(const std::string& from, const std::string& to) const {
    std::string front = front_;
    const std::size_t at = front.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    check_text(concat(front.replace(at, from.size(), to), segments_, weights_key, weights_, "]}"));
  }

 private:
  static void check(const std::string& head, std::uint64_t file_bytes) {
    expect_bounded(head, [&] { (void)io::parse_store_header(std::as_bytes(std::span(head)), file_bytes, "x"); });
  }
  static void check_text(const std::string& metadata) {
    constexpr std::uint64_t file_bytes = std::uint64_t{1} << 40;
    check(sealed(metadata, file_bytes), file_bytes);
  }

  static constexpr std::string_view segments_key = "\"segments\":[", weights_key = "],\n\"weights\":[";
  std::string whole_, front_, segments_, weights_;
  std::uint64_t file_bytes_;
};

TEST(ParseMemory, P3_Store) {
  for (const ModelSpec& spec : {testing::llama_like(1000), testing::gpt2_like(1000), testing::neox_like(1000)}) {
    const StoreHead head(io::plan_store(spec, DataType::f32, {}, formats_in_turn(spec, {formats::f32, formats::q4_1})));
    head.check();
    head.check_with_weights("");
  }
  const ModelSpec small = testing::llama_like(1);
  const StoreHead head(io::plan_store(small, DataType::f32, {}, formats_in_turn(small, {formats::f32})));
  head.check_with_segments(repeat("0", 1'000'000, ","));
  head.check_with_segments(
      repeat(R"({"layer":0,"segment":"head","offset":0,"bytes":0,"xxh64":"0000000000000000"})", 100'000, ","));
  head.check_with_weights(repeat(
      R"({"name":"head","segment":0,"offset":0,"bytes":0,"rows":1,"columns":1,"format":{"element":"f32","group":0,)"
      R"("scale":"none","offset":"none","input":"dtype"}})",
      100'000, ","));
  head.check_with("\"long_factor\":[]", "\"long_factor\":[" + repeat("1", 1'000'000, ",") + "]");
  head.check_with("\"source\":{}", "\"source\":{\"x\":\"" + std::string(4'000'000, 'x') + "\"}");
  const std::string text = to_json(small), layer = text.substr(text.find("\"layers\":[") + 10);
  const std::string one = layer.substr(0, layer.find("],\"head\""));
  head.check_with("\"layers\":[", "\"layers\":[" + repeat(one, 10'000, ",") + ",");
}

}  // namespace
}  // namespace lamella::test
