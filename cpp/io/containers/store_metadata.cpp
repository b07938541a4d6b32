#include "io/containers/store_metadata.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

#include "base/checksum.h"
#include "io/containers/json.h"
#include "io/containers/limits.h"
#include "io/containers/spec_json.h"
#include "io/containers/utf8.h"
#include "io/refuse.h"

namespace lamella::io {
namespace {

// One table of names for both directions, each in the order of its enum.
template <typename Enum>
constexpr std::array<std::string_view, 0> names_of{};
template <>
constexpr std::array<std::string_view, 3> names_of<DataType>{"f32", "f16", "bf16"};  // of activations: not int32
template <>
constexpr std::array<std::string_view, 5> names_of<Element>{"f32", "f16", "bf16", "i8", "i4"};
template <>
constexpr std::array<std::string_view, 3> names_of<Scale>{"none", "f32", "f16"};
template <>
constexpr std::array<std::string_view, 3> names_of<Offset>{"none", "minimum", "zero"};
template <>
constexpr std::array<std::string_view, 3> names_of<LinearInput>{"dtype", "int8", "int8_rotated"};
template <>
constexpr std::array<std::string_view, 8> names_of<Segment>{"embedding", "norms_qkv",     "attention_output", "mlp_up",
                                                            "mlp_down",  "shared_expert", "experts",          "head"};

template <typename Enum>
std::string_view name(Enum value) {
  return names_of<Enum>.at(static_cast<std::size_t>(value));
}

constexpr std::size_t most_texts = 64, longest_key = 256, longest_value = 4096;
constexpr std::size_t hash_digits = 16;
constexpr std::string_view expert_of = "experts.";  // before its number, in the names of segments and weights

// ---- writing -------------------------------------------------------------------------------------------------------------

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00" + hex(std::array{static_cast<std::byte>(c)});
    } else {
      out += c;
    }
  }
  return out;
}

void check_source(const std::map<std::string, std::string>& source) {
  const auto require = [](bool holds, const std::string& key, std::string_view rule) {
    if (!holds)
      throw Error(ErrorCode::invalid_argument, concat("a packed store's source text ", quoted(key), ": ", rule));
  };
  for (const auto& [key, value] : source) {
    require(source.size() <= most_texts, key, "at most 64 texts are allowed");
    require(!key.empty() && key.size() <= longest_key, key, "a name has 1 to 256 bytes");
    require(value.size() <= longest_value, key, "a text has at most 4096 bytes");
    require(is_utf8(key) && is_utf8(value), key, "names and texts are UTF-8");
  }
}

// ---- reading -------------------------------------------------------------------------------------------------------------

/// The weight of that canonical name.
std::optional<WeightId> weight_named(std::string_view text) {
  constexpr std::string_view layers = "layers.";
  WeightId id;
  std::string_view slot = text;
  if (text.starts_with(layers)) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + layers.size(), end, id.layer);
    if (error != std::errc() || stop == end) return std::nullopt;
    slot = {stop + 1, end};
    if (slot.starts_with(expert_of)) {
      const auto [last, wrong] = std::from_chars(slot.data() + expert_of.size(), end, id.expert);
      if (wrong != std::errc() || last == end) return std::nullopt;
      slot = {last + 1, end};
    }
  }
  for (int i = 0; i <= static_cast<int>(Slot::pooler_bias); ++i) {
    id.slot = static_cast<Slot>(i);
    // Comparing the whole name refuses "layers.-1", "layers.007" and what stands in place of the second dot.
    if (to_string(id.slot) == slot && to_string(id) == text) return id;
  }
  return std::nullopt;
}

/// Where in the metadata a value stands: "weights[3].format", told apart only where it is shown.
struct Place {
  std::string_view list;
  std::optional<std::size_t> index = {};
  std::string_view field = {};

  friend std::ostream& operator<<(std::ostream& out, const Place& place) {
    out << place.list;
    if (place.index) out << '[' << *place.index << ']';
    if (!place.field.empty()) out << (place.list.empty() ? "" : ".") << place.field;
    return out;
  }
};

class MetadataReader {
 public:
  explicit MetadataReader(std::string_view file) : file_(file) {}

  json::Document parse(std::string_view text, std::size_t offset) const {
    try {
      return {text, file_, offset};
    } catch (const Error& error) {  // whole by its checksum, so that a copy is no better
      throw Error(error.code(), concat(error.what(), pack_again));
    }
  }

  StoreHeader read(json::Value root) const {
    const auto [layout, model, dtype, source, digest, segments, weights] = members<7>(
        root, {.list = "the metadata"}, {"layout", "model", "dtype", "source", "digest", "segments", "weights"});
    StoreHeader header;
    header.layout = text(layout, {.list = "layout"});
    if (header.layout != store_layout)
      refuse_unsupported(file_, "the weights are laid out as ", brief(header.layout),
                         "; this version of Lamella reads ", brief(store_layout),
                         ": pack the model again with this version");
    header.model = model_spec(model);
    header.dtype = named<DataType>(dtype, {.list = "dtype"});
    read_source(source, header.source);
    header.digest = text(digest, {.list = "digest"});
    read_list(segments, "segments", header.segments, [&](auto value, auto place) { return segment(value, place); });
    read_list(weights, "weights", header.weights, [&](auto value, auto place) { return weight(value, place); });
    return header;
  }

 private:
  template <typename... Parts>
  [[noreturn]] void fail(json::Value at, const Place& place, const Parts&... parts) const {
    refuse(file_, place, " at byte ", at.offset(), ": ", parts..., pack_again);
  }

  /// The spec and its errors, which do not know the file.
  ModelSpec model_spec(json::Value value) const {
    try {
      return spec_from_json(value);
    } catch (const Error& error) {
      throw Error(error.code(), concat(file_, ": ", error.what(), pack_again));
    }
  }

  void expect(json::Value value, const Place& place, json::Kind kind, std::string_view what) const {
    if (!value.is(kind)) fail(value, place, "expected ", what);
  }

  /// The members of an object, in the order of `names`: each must be there, and none else.
  template <std::size_t count>
  std::array<json::Value, count> members(json::Value object, const Place& place,
                                         const std::array<std::string_view, count>& names) const {
    expect(object, place, json::Kind::object, "an object");
    std::array<std::optional<json::Value>, count> found;
    object.members([&](json::Value key, json::Value value) {
      const auto at =
          std::find_if(names.begin(), names.end(), [&](std::string_view wanted) { return key.equals(wanted); });
      if (at == names.end()) fail(key, place, "unknown key ", brief(key.string()));
      found[static_cast<std::size_t>(at - names.begin())] = value;
    });
    for (std::size_t i = 0; i < count; ++i)
      if (!found[i]) fail(object, place, "no key ", brief(names[i]));
    return [&]<std::size_t... i>(std::index_sequence<i...>) {
      return std::array<json::Value, count>{*found[i]...};
    }(std::make_index_sequence<count>());
  }

  std::string text(json::Value value, const Place& place) const {
    expect(value, place, json::Kind::string, "a text");
    return value.string();
  }

  template <std::integral Number>
  Number number(json::Value value, const Place& place) const {
    const std::optional<std::uint64_t> digits = value.digits();
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Number>::max());
    if (!digits || *digits > most) fail(value, place, "expected a whole number from 0 to ", most);
    return static_cast<Number>(*digits);
  }

  template <typename Enum>
  Enum named(json::Value value, const Place& place) const {
    const std::string found = text(value, place);
    const auto& names = names_of<Enum>;
    const auto at = std::find(names.begin(), names.end(), found);
    if (at == names.end()) fail(value, place, brief(found), " is unknown to this version of Lamella");
    return static_cast<Enum>(at - names.begin());
  }

  std::uint64_t hash(json::Value value, const Place& place) const {
    const std::string digits = text(value, place);
    std::uint64_t out = 0;
    if (digits.size() == hash_digits) std::from_chars(digits.data(), digits.data() + digits.size(), out, 16);
    if (hex(out) != digits) fail(value, place, "expected 16 lower-case hexadecimal digits, found ", brief(digits));
    return out;
  }

  void read_source(json::Value value, std::map<std::string, std::string>& out) const {
    const Place place{.list = "source"};
    expect(value, place, json::Kind::object, "an object of texts");
    if (value.size() > most_texts) fail(value, place, value.size(), " texts; at most ", most_texts, " are allowed");
    value.members([&](json::Value key, json::Value content) {
      std::string key_text = key.string(), value_text = text(content, place);
      if (key_text.empty() || key_text.size() > longest_key || value_text.size() > longest_value)
        fail(key, place, "a name of ", key_text.size(), " and a text of ", value_text.size(), " bytes; 1 to ",
             longest_key, " and at most ", longest_value, " are allowed");
      out.emplace(std::move(key_text), std::move(value_text));
    });
  }

  template <typename Item, typename Read>
  void read_list(json::Value value, std::string_view list, std::vector<Item>& out, Read read) const {
    expect(value, {.list = list}, json::Kind::array, "a list");
    const std::size_t count = value.size();
    if (count > limits::tensors)
      fail(value, {.list = list}, count, " entries; at most ", limits::tensors, " are allowed");
    // No reserve: a list of a million zeros is refused at the first.
    value.each([&](json::Value item) { out.push_back(read(item, Place{.list = list, .index = out.size()})); });
  }

  /// Of "experts.7"; nothing for other segments. A layout with other experts than the model's is refused later on.
  static std::optional<std::int32_t> expert_number(std::string_view segment) {
    if (!segment.starts_with(expert_of)) return std::nullopt;
    std::int32_t number = -1;
    const char* const end = segment.data() + segment.size();
    const auto [stop, error] = std::from_chars(segment.data() + expert_of.size(), end, number);
    const bool whole = error == std::errc() && stop == end && segment == concat(expert_of, number);
    return whole ? std::optional(number) : std::nullopt;
  }

  StoreSegment segment(json::Value value, Place place) const {
    const auto [layer, name, offset, bytes, sum] =
        members<5>(value, place, {"layer", "segment", "offset", "bytes", "xxh64"});
    const auto at = [&](std::string_view field) { return Place{place.list, place.index, field}; };
    const bool outside = layer.is(json::Kind::number) && layer.number() == json::Number(std::int64_t{-1});
    const std::optional<std::int32_t> expert = expert_number(text(name, at("segment")));
    const Segment kind = expert ? Segment::experts : named<Segment>(name, at("segment"));
    if (kind == Segment::experts && !expert)
      fail(name, at("segment"), "\"experts\" is unknown to this version of Lamella: expected one with a number");
    return {.layer = outside ? -1 : number<std::int32_t>(layer, at("layer")),
            .segment = kind,
            .expert = expert.value_or(-1),
            .offset = number<std::uint64_t>(offset, at("offset")),
            .bytes = number<std::uint64_t>(bytes, at("bytes")),
            .xxh64 = hash(sum, at("xxh64"))};
  }

  StoreWeight weight(json::Value value, Place place) const {
    const auto [name, segment, offset, bytes, rows, columns, format] =
        members<7>(value, place, {"name", "segment", "offset", "bytes", "rows", "columns", "format"});
    const auto at = [&](std::string_view field) { return Place{place.list, place.index, field}; };
    const std::string written = text(name, at("name"));
    const std::optional<WeightId> id = weight_named(written);
    if (!id) fail(name, at("name"), "no weight has the name ", brief(written));
    return {.id = *id,
            .segment = number<std::uint32_t>(segment, at("segment")),
            .offset = number<std::uint64_t>(offset, at("offset")),
            .bytes = number<std::uint64_t>(bytes, at("bytes")),
            .rows = number<std::int64_t>(rows, at("rows")),
            .columns = number<std::int64_t>(columns, at("columns")),
            .format = weight_format(format, place)};
  }

  WeightFormat weight_format(json::Value value, const Place& place) const {
    const auto at = [&](std::string_view field) { return Place{place.list, place.index, field}; };
    const auto [element, group, scale, offset, input] =
        members<5>(value, at("format"), {"element", "group", "scale", "offset", "input"});
    const WeightFormat format{.element = named<Element>(element, at("format.element")),
                              .group = number<std::int32_t>(group, at("format.group")),
                              .scale = named<Scale>(scale, at("format.scale")),
                              .offset = named<Offset>(offset, at("format.offset")),
                              .input = named<LinearInput>(input, at("format.input"))};
    try {
      validate(format);
    } catch (const Error& error) {
      fail(value, at("format"), error.what());
    }
    return format;
  }

  std::string_view file_;
};

}  // namespace

std::string to_json(const WeightFormat& format) {
  return concat(R"({"element":")", name(format.element), R"(","group":)", format.group, R"(,"scale":")",
                name(format.scale), R"(","offset":")", name(format.offset), R"(","input":")", name(format.input),
                "\"}");
}

std::string store_metadata(const StoreHeader& header, std::string_view digest) {
  check_source(header.source);
  std::string out = concat(R"({"layout":")", escaped(header.layout), "\",\n\"model\":", lamella::to_json(header.model));
  out += concat(",\n\"dtype\":\"", name(header.dtype), "\",\n\"source\":{");
  for (std::string_view comma; const auto& [key, value] : header.source) {
    out += concat(comma, '"', escaped(key), "\":\"", escaped(value), '"');
    comma = ",";
  }
  out += concat("},\n\"digest\":\"", escaped(digest), "\",\n\"segments\":[");
  for (std::string_view comma; const StoreSegment& segment : header.segments) {
    out += concat(comma, "\n", R"({"layer":)", segment.layer, R"(,"segment":")", name(segment.segment),
                  segment.expert < 0 ? "" : concat(".", segment.expert), R"(","offset":)", segment.offset,
                  R"(,"bytes":)", segment.bytes, R"(,"xxh64":")", hex(segment.xxh64), "\"}");
    comma = ",";
  }
  out += "],\n\"weights\":[";
  for (std::string_view comma; const StoreWeight& weight : header.weights) {
    out += concat(comma, "\n", R"({"name":")", to_string(weight.id), R"(","segment":)", weight.segment, R"(,"offset":)",
                  weight.offset, R"(,"bytes":)", weight.bytes, R"(,"rows":)", weight.rows, R"(,"columns":)",
                  weight.columns, R"(,"format":)", to_json(weight.format), '}');
    comma = ",";
  }
  return out + "]}\n";
}

StoreHeader parse_store_metadata(std::string_view text, std::string_view file, std::size_t offset) {
  const MetadataReader reader(file);
  const json::Document document = reader.parse(text, offset);
  return reader.read(document.root());
}

}  // namespace lamella::io
