#include "io/containers/spec_json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <concepts>
#include <limits>
#include <map>
#include <type_traits>

#include "base/check.h"

namespace lamella {
namespace {

// ---- the fields, written down once for both directions -----------------------------------------------------------------

template <typename Enum>
constexpr std::array<std::string_view, 0> names_of{};
template <>
constexpr std::array<std::string_view, 3> names_of<NormKind>{"none", "layer_norm", "rms_norm"};
template <>
constexpr std::array<std::string_view, 6> names_of<RopeScaling>{"none", "linear",   "dynamic_ntk",
                                                                "yarn", "longrope", "llama3"};
template <>
constexpr std::array<std::string_view, 3> names_of<PositionKind>{"none", "learned", "rotary"};
template <>
constexpr std::array<std::string_view, 7> names_of<Activation>{"none", "gelu", "gelu_tanh", "relu",
                                                               "silu", "tanh", "quick_gelu"};
template <>
constexpr std::array<std::string_view, 4> names_of<RouterKind>{"softmax_top_k", "softmax_top_k_renormalised",
                                                               "sigmoid_with_bias", "top_1"};
template <>
constexpr std::array<std::string_view, 3> names_of<Residual>{"sequential", "parallel", "post_norm"};
template <>
constexpr std::array<std::string_view, 2> names_of<HeadKind>{"logits", "hidden"};

/// Whether S is T, const or not: visit() reads through one and writes through the other.
template <typename S, typename T>
concept As = std::same_as<std::remove_const_t<S>, T>;

template <typename Visit>
void fields(Visit& visit, As<NormSpec> auto& s) {
  visit("kind", s.kind);
  visit("eps", s.eps);
  visit("bias", s.bias);
}
template <typename Visit>
void fields(Visit& visit, As<RopeSpec> auto& s) {
  visit("rotary_dim", s.rotary_dim);
  visit("theta", s.theta);
  visit("scaling", s.scaling);
  visit("factor", s.factor);
  visit("original_max_positions", s.original_max_positions);
  visit("beta_fast", s.beta_fast);
  visit("beta_slow", s.beta_slow);
  visit("truncate", s.truncate);
  visit("low_freq_factor", s.low_freq_factor);
  visit("high_freq_factor", s.high_freq_factor);
  visit("short_factor", s.short_factor);
  visit("long_factor", s.long_factor);
  visit("attention_factor", s.attention_factor);
  visit("mscale", s.mscale);
  visit("mscale_all_dim", s.mscale_all_dim);
}
template <typename Visit>
void fields(Visit& visit, As<AttentionSpec> auto& s) {
  visit("heads", s.heads);
  visit("kv_heads", s.kv_heads);
  visit("head_dim", s.head_dim);
  visit("scale", s.scale);
  visit("causal", s.causal);
  visit("qkv_bias", s.qkv_bias);
  visit("output_bias", s.output_bias);
  visit("rope", s.rope);
  visit("query_norm", s.query_norm);
  visit("key_norm", s.key_norm);
  visit("window", s.window);
  visit("logit_softcap", s.logit_softcap);
  visit.newer("norm_across_heads", s.norm_across_heads);
}
template <typename Visit>
void fields(Visit& visit, As<ExpertsSpec> auto& s) {
  visit("count", s.count);
  visit("top_k", s.top_k);
  visit("intermediate", s.intermediate);
  visit("router", s.router);
  visit("scale", s.scale);
  visit("shared_intermediate", s.shared_intermediate);
  visit("shared_gate", s.shared_gate);
}
template <typename Visit>
void fields(Visit& visit, As<MlpSpec> auto& s) {
  visit("intermediate", s.intermediate);
  visit("activation", s.activation);
  visit("gated", s.gated);
  visit("up_bias", s.up_bias);
  visit("down_bias", s.down_bias);
  visit("experts", s.experts);
}
template <typename Visit>
void fields(Visit& visit, As<LayerSpec> auto& s) {
  visit("residual", s.residual);
  visit("attention_norm", s.attention_norm);
  visit("attention", s.attention);
  visit("mlp_norm", s.mlp_norm);
  visit("mlp", s.mlp);
}
template <typename Visit>
void fields(Visit& visit, As<EmbeddingSpec> auto& s) {
  visit("positions", s.positions);
  visit("position_rows", s.position_rows);
  visit("position_offset", s.position_offset);
  visit("token_types", s.token_types);
  visit("norm", s.norm);
  visit("scale", s.scale);
}
template <typename Visit>
void fields(Visit& visit, As<HeadSpec> auto& s) {
  visit("kind", s.kind);
  visit("norm", s.norm);
  visit("tied", s.tied);
  visit("bias", s.bias);
  visit("pooler", s.pooler);
}
template <typename Visit>
void fields(Visit& visit, As<ModelSpec> auto& s) {
  visit("family", s.family);
  visit("vocab", s.vocab);
  visit("hidden", s.hidden);
  visit("max_positions", s.max_positions);
  visit("embedding", s.embedding);
  visit("layers", s.layers);
  visit("head", s.head);
}

/// Whether a text needs no escapes in JSON, nor in a message.
bool is_plain(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
}

// ---- writing -------------------------------------------------------------------------------------------------------------

struct Writer {
  std::string text;
  const std::function<void(std::string_view)>* out = nullptr;  // takes the text in pieces, where there is one

  /// Keeps the last character, which decides about the next comma.
  void hand_on() {
    constexpr std::size_t piece = 4096;
    if (out == nullptr || text.size() < piece) return;
    (*out)(std::string_view(text).substr(0, text.size() - 1));
    text.erase(0, text.size() - 1);
  }

  template <typename Field>
  void operator()(std::string_view name, const Field& field) {
    hand_on();
    if (text.back() != '{') text += ',';
    text += concat('"', name, "\":");
    write(field);
  }

  /// A field that older stores do not have: left out where it says nothing.
  template <typename Field>
  void newer(std::string_view name, const Field& field) {
    if (field != Field{}) (*this)(name, field);
  }

  void write(bool value) { text += value ? "true" : "false"; }
  void write(float value) { write(static_cast<double>(value)); }  // all its digits: readers round to double first
  /// With an exponent where the digits alone would be no 64-bit integer, which readers refuse (J4).
  void write(double value) {
    char digits[32];
    text.append(digits, std::abs(value) < 0x1p63
                            ? std::to_chars(digits, digits + sizeof digits, value).ptr
                            : std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific).ptr);
  }
  template <std::integral Number>
  void write(Number value) {
    char digits[32];
    text.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  template <typename Enum>
    requires std::is_enum_v<Enum>
  void write(Enum value) {
    text += concat('"', names_of<Enum>.at(static_cast<std::size_t>(value)), '"');
  }
  /// The family's name: letters, digits and a few signs, nothing to escape.
  void write(const std::string& value) {
    check(is_plain(value), "a family's name is written in plain ASCII: ", quoted(value));
    text += concat('"', value, '"');
  }
  template <typename Item>
  void write(const std::optional<Item>& value) {
    if (value) write(*value);
    else text += "null";
  }
  template <typename Item>
  void write(const std::vector<Item>& items) {
    text += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) text += ',';
      write(items[i]);
      hand_on();
    }
    text += ']';
  }
  template <typename Record>
    requires std::is_class_v<Record>
  void write(const Record& record) {
    text += '{';
    fields(*this, record);
    text += '}';
  }
};

// ---- reading -------------------------------------------------------------------------------------------------------------

/// One object's members by name; what no field has asked for in the end is an error.
class Reader {
  static constexpr std::size_t most_members = 64, longest_text = 256;  // far above what any record needs

 public:
  Reader(io::json::Value object, std::string path) : path_(std::move(path)) {
    require(object.is(io::json::Kind::object), path_, "an object");
    require(object.size() <= most_members, path_, concat("an object of at most ", most_members, " fields"));
    object.members([&](io::json::Value key, io::json::Value value) { members_.emplace(key.string(), value); });
  }

  template <typename Field>
  void operator()(std::string_view name, Field& field) {
    const std::string at = path_.empty() ? std::string(name) : concat(path_, ".", name);
    const auto found = members_.find(name);
    if (found == members_.end()) refuse(at, "is missing");
    read(found->second, at, field);
    members_.erase(found);
  }

  template <typename Field>
  void newer(std::string_view name, Field& field) {
    if (members_.contains(name)) (*this)(name, field);
  }

  template <typename Record>
  static void read_record(io::json::Value value, const std::string& at, Record& record) {
    Reader reader(value, at);
    fields(reader, record);
    if (!reader.members_.empty())
      refuse(concat(at, at.empty() ? "" : ".", quoted(reader.members_.begin()->first)), "is unknown to this version");
  }

 private:
  [[noreturn]] static void refuse(const std::string& at, std::string_view what) {
    throw Error(ErrorCode::invalid_checkpoint,
                concat("the store's model: field ", at.empty() ? "(the whole)" : at, " ", what));
  }
  static void require(bool holds, const std::string& at, std::string_view expected) {
    if (!holds) refuse(at, concat("is not ", expected));
  }

  static void read(io::json::Value value, const std::string& at, bool& field) {
    require(value.is(io::json::Kind::boolean), at, "true or false");
    field = value.boolean();
  }
  template <std::integral Integer>
  static void read(io::json::Value value, const std::string& at, Integer& field) {
    const std::optional<std::uint64_t> digits = value.is(io::json::Kind::number) ? value.digits() : std::nullopt;
    require(digits && *digits <= static_cast<std::uint64_t>(std::numeric_limits<Integer>::max()), at,
            "a whole number in range");
    field = static_cast<Integer>(*digits);
  }
  template <std::floating_point Float>
  static void read(io::json::Value value, const std::string& at, Float& field) {
    require(value.is(io::json::Kind::number), at, "a number");
    const double number = std::visit([](auto n) { return static_cast<double>(n); }, value.number());
    field = static_cast<Float>(number);
    require(std::isfinite(field), at, "a number in range");
  }
  template <typename Enum>
    requires std::is_enum_v<Enum>
  static void read(io::json::Value value, const std::string& at, Enum& field) {
    if (value.is(io::json::Kind::string))
      for (std::size_t i = 0; i < names_of<Enum>.size(); ++i)
        if (value.equals(names_of<Enum>[i])) {
          field = static_cast<Enum>(i);
          return;
        }
    refuse(at, "has a value that is unknown to this version");
  }
  static void read(io::json::Value value, const std::string& at, std::string& field) {
    require(value.is(io::json::Kind::string), at, "a text");
    field = value.string();
    require(field.size() <= longest_text && is_plain(field), at,
            concat("at most ", longest_text, " characters of plain ASCII"));
  }
  template <typename Item>
  static void read(io::json::Value value, const std::string& at, std::optional<Item>& field) {
    field.reset();
    if (!value.is(io::json::Kind::null)) read(value, at, field.emplace());
  }
  template <typename Item>
  static void read(io::json::Value value, const std::string& at, std::vector<Item>& field) {
    require(value.is(io::json::Kind::array), at, "a list");
    field.clear();
    // Exactly, where an item is no longer than its text can be: growing by doubling would hold it three times.
    if constexpr (std::is_arithmetic_v<Item>) field.reserve(value.size());
    value.each([&](io::json::Value item) {
      const std::string item_at = concat(at, "[", field.size(), "]");
      read(item, item_at, field.emplace_back());
    });
  }
  template <typename Record>
    requires std::is_class_v<Record>
  static void read(io::json::Value value, const std::string& at, Record& record) {
    read_record(value, at, record);
  }

  std::string path_;
  std::map<std::string, io::json::Value, std::less<>> members_;
};

}  // namespace

std::string to_json(const ModelSpec& spec) {
  Writer writer;
  writer.write(spec);
  return std::move(writer.text);
}

void write_json(const ModelSpec& spec, const std::function<void(std::string_view)>& out) {
  Writer writer{.text = {}, .out = &out};
  writer.write(spec);
  out(writer.text);
}

ModelSpec spec_from_json(io::json::Value object) {
  ModelSpec spec;
  Reader::read_record(object, "", spec);
  validate(spec);
  return spec;
}

}  // namespace lamella
