// Input: the text of a model.safetensors.index.json. The JSON parser's own promises are checked on the way.
#include "fuzz.h"

#include "io/containers/json.h"
#include "io/containers/safetensors_index.h"
#include "io/containers/utf8.h"

namespace {

using namespace lamella;

/// Visits every value, so that what the parser let through can be read back.
void walk(io::json::Value value, int depth) {
  fuzz::require(depth <= 64, "at most 64 levels");
  switch (value.kind()) {
    case io::json::Kind::string:
      fuzz::require(io::is_utf8(value.string()) && value.equals(value.string()), "decoded strings are UTF-8");
      break;
    case io::json::Kind::number: (void)value.number(); break;
    case io::json::Kind::array: value.each([&](auto element) { walk(element, depth + 1); }); break;
    case io::json::Kind::object: value.members([&](auto, auto member) { walk(member, depth + 1); }); break;
    default: break;
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  fuzz::expect_only_refusals([&] {
    const io::json::Document document(text, "fuzzed");
    walk(document.root(), 0);
    // Only for what is JSON: the parser would refuse the rest once more, and refusing is what takes the time.
    const io::SafetensorsIndex index = io::parse_safetensors_index(text, "fuzzed");
    for (const auto& listing : index.listings)
      fuzz::require(listing.shard < index.shards.size(), "listings name a shard");
  });
  return 0;
}
