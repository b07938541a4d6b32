// P3: parsing takes at most 8 times the input and 1 MiB. Every allocation of this program is counted; the inputs are
// the ones that make the most of each byte.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "counting_new.h"
#include "io/containers/gguf.h"
#include "io/containers/json.h"
#include "io/containers/safetensors.h"
#include "io/containers/safetensors_index.h"
#include "lamella/error.h"

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

}  // namespace
}  // namespace lamella::test
