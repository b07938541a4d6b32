#include "io/containers/json.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "io/containers/utf8.h"
#include "io/refuse.h"

namespace lamella::io::json {
namespace {

constexpr int max_depth = 64;

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

constexpr int hex_digit(char c) noexcept {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// The four hex digits at `at` as a code unit, or -1.
constexpr int code_unit(std::string_view text, std::size_t at) noexcept {
  int unit = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const int digit = at + i < text.size() ? hex_digit(text[at + i]) : -1;
    if (digit < 0) return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}

constexpr bool is_high_surrogate(int unit) noexcept { return unit >= 0xd800 && unit < 0xdc00; }
constexpr bool is_low_surrogate(int unit) noexcept { return unit >= 0xdc00 && unit < 0xe000; }

void append_utf8(std::string& out, int code) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | (code >> 12));
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xf0 | (code >> 18));
    tail(12), tail(6), tail(0);
  }
}

/// The characters of a string token whose opening quote is at the start of `token` and which the parser has accepted.
std::string_view raw_string(std::string_view token) noexcept {
  std::size_t at = 1;
  while (token[at] != '"') at += token[at] == '\\' ? 2 : 1;
  return token.substr(1, at - 1);
}

std::string decode(std::string_view raw) {
  std::string out;
  out.reserve(raw.size());
  for (std::size_t at = 0; at < raw.size(); ++at) {
    if (raw[at] != '\\') {
      out += raw[at];
      continue;
    }
    switch (const char escape = raw[++at]) {
      case 'b': out += '\b'; break;
      case 'f': out += '\f'; break;
      case 'n': out += '\n'; break;
      case 'r': out += '\r'; break;
      case 't': out += '\t'; break;
      case 'u': {
        int code = code_unit(raw, at + 1);
        at += 4;
        if (is_high_surrogate(code)) {
          code = 0x10000 + ((code - 0xd800) << 10) + (code_unit(raw, at + 3) - 0xdc00);
          at += 6;
        }
        append_utf8(out, code);
        break;
      }
      default: out += escape;  // '"', '\\' and '/'
    }
  }
  return out;
}

bool has_escape(std::string_view raw) noexcept { return raw.find('\\') != std::string_view::npos; }

int compare_strings(std::string_view a, std::string_view b) {
  if (has_escape(a) || has_escape(b)) return decode(a).compare(decode(b));
  return a.compare(b);
}

/// At most this many nodes can come of the text: each follows the start, a bracket, a comma or a colon.
std::size_t count_nodes(std::string_view text) noexcept {
  std::size_t count = 1;
  for (const char c : text) count += c == ',' || c == ':' || c == '[' || c == '{';
  return std::min(count, text.size() / 2 + 1);
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view file, std::size_t base, std::vector<Node>& nodes)
      : text_(text), file_(file), base_(base), nodes_(nodes) {}

  void document() {
    skip_space();
    value(0);
    skip_space();
    if (at_ != text_.size()) fail("text after the end of the value");
  }

 private:
  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    refuse(file_, "JSON error at byte ", base_ + at_, ": ", parts...);
  }

  [[nodiscard]] char peek() const noexcept { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() noexcept {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }

  void take(char wanted) {
    if (peek() != wanted) fail("expected '", wanted, "', found ", found());
    ++at_;
  }

  [[nodiscard]] std::string found() const { return at_ < text_.size() ? shown(text_.substr(at_, 1)) : "the end"; }

  void value(int depth) {
    const auto node = static_cast<std::uint32_t>(nodes_.size());
    nodes_.push_back({static_cast<std::uint32_t>(at_), 0});
    switch (peek()) {
      case '{': object(node, depth + 1); break;
      case '[': array(depth + 1); break;
      case '"': string(); break;
      case 't': word("true"); break;
      case 'f': word("false"); break;
      case 'n': word("null"); break;
      default: number();
    }
    nodes_[node].end = static_cast<std::uint32_t>(nodes_.size());
  }

  void word(std::string_view wanted) {
    if (text_.substr(at_, wanted.size()) != wanted)
      fail("expected a value, found ", shown(text_.substr(at_, wanted.size())));
    at_ += wanted.size();
  }

  void check_depth(int depth) const {
    if (depth > max_depth) fail("nesting deeper than ", max_depth, " [J1]");
  }

  void array(int depth) {
    check_depth(depth);
    take('[');
    skip_space();
    if (peek() == ']') return void(++at_);
    while (true) {
      value(depth);
      skip_space();
      if (peek() == ']') return void(++at_);
      take(',');
      skip_space();
    }
  }

  void object(std::uint32_t node, int depth) {
    check_depth(depth);
    take('{');
    skip_space();
    std::size_t keys = 0;
    if (peek() != '}') {
      while (true) {
        if (peek() != '"') fail("expected a key in quotes, found ", found());
        nodes_.push_back({static_cast<std::uint32_t>(at_), static_cast<std::uint32_t>(nodes_.size() + 1)});
        ++keys;
        string();
        skip_space();
        take(':');
        skip_space();
        value(depth);
        skip_space();
        if (peek() == '}') break;
        take(',');
        skip_space();
      }
    }
    ++at_;
    check_unique(node + 1, keys);
  }

  [[nodiscard]] std::string_view key_at(std::uint32_t node) const {
    return raw_string(text_.substr(nodes_[node].text));
  }

  [[noreturn]] void fail_twice(std::uint32_t node) {
    at_ = nodes_[node].text;
    fail("key ", shown(decode(key_at(node))), " occurs twice [J2]");
  }

  void check_unique(std::uint32_t first, std::size_t count) {
    const auto next = [&](std::uint32_t key) { return nodes_[key + 1].end; };
    // A tensor's description has three keys: comparing all pairs beats sorting, and needs no memory.
    if (count <= 4) {
      std::uint32_t key = first;
      for (std::size_t i = 0; i < count; ++i, key = next(key)) {
        std::uint32_t other = first;
        for (std::size_t j = 0; j < i; ++j, other = next(other))
          if (compare_strings(key_at(key), key_at(other)) == 0) fail_twice(key);
      }
      return;
    }
    std::vector<std::uint32_t> keys;
    keys.reserve(count);
    for (std::uint32_t key = first; keys.size() < count; key = next(key)) keys.push_back(key);
    std::sort(keys.begin(), keys.end(), [&](auto a, auto b) {
      const int order = compare_strings(key_at(a), key_at(b));
      return order != 0 ? order < 0 : a < b;  // of equal keys, the later one is named in the error
    });
    for (std::size_t i = 1; i < count; ++i)
      if (compare_strings(key_at(keys[i - 1]), key_at(keys[i])) == 0) fail_twice(keys[i]);
  }

  void string() {
    ++at_;  // the opening quote
    while (true) {
      if (at_ == text_.size()) fail("the text ends inside a string");
      const auto byte = static_cast<unsigned char>(text_[at_]);
      if (byte == '"') return void(++at_);
      if (byte < 0x20) fail("control character in a string");
      if (byte == '\\') {
        escape();
      } else {
        const std::size_t length = utf8_length(text_, at_);
        if (length == 0) fail("invalid UTF-8");
        at_ += length;
      }
    }
  }

  void escape() {
    const char kind = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (kind == 'u') {
      const int unit = code_unit(text_, at_ + 2);
      if (unit < 0) fail("\\u needs four hexadecimal digits");
      const bool pair =
          is_high_surrogate(unit) && text_.substr(at_ + 6, 2) == "\\u" && is_low_surrogate(code_unit(text_, at_ + 8));
      if (!pair && (is_high_surrogate(unit) || is_low_surrogate(unit))) fail("half of a surrogate pair [J3]");
      at_ += pair ? 12 : 6;
    } else if (kind != '\0' && std::string_view("\"\\/bfnrt").find(kind) != std::string_view::npos) {
      at_ += 2;
    } else {
      fail("unknown escape");
    }
  }

  void number() {
    const std::size_t begin = at_;
    const auto digits = [&] {
      if (!is_digit(peek())) fail("expected ", at_ == begin ? "a value" : "a digit", ", found ", found());
      while (is_digit(peek())) ++at_;
    };
    if (peek() == '-') ++at_;
    if (peek() == '0') {
      ++at_;
      if (is_digit(peek())) fail("a number begins with a needless 0");
    } else {
      digits();
    }
    if (peek() == '.') ++at_, digits();
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    if (!parse_number(text_.substr(begin, at_ - begin))) {
      at_ = begin;
      fail("a number outside the range of 64-bit integers and of double [J4]");
    }
  }

 public:
  /// The number that `token` writes, or nothing when no Number holds it.
  static std::optional<Number> parse_number(std::string_view token) {
    const char *begin = token.data(), *end = begin + token.size();
    const auto read = [&](auto number) -> std::optional<Number> {
      const auto [stop, error] = std::from_chars(begin, end, number);
      return error == std::errc() && stop == end ? std::optional<Number>(number) : std::nullopt;
    };
    if (token == "-0" || token.find_first_of(".eE") != std::string_view::npos) return read(double{});
    return token.front() == '-' ? read(std::int64_t{}) : read(std::uint64_t{});
  }

  /// The number that `text` begins with; the parser has accepted it.
  static std::string_view number_token(std::string_view text) noexcept {
    return text.substr(0, text.find_first_not_of("+-.0123456789eE"));
  }

 private:
  std::string_view text_;
  std::string_view file_;
  std::size_t base_;
  std::vector<Node>& nodes_;
  std::size_t at_ = 0;
};

}  // namespace

Document::Document(std::string_view text, std::string_view file, std::size_t base) : text_(text), base_(base) {
  if (text.size() >= std::numeric_limits<std::uint32_t>::max())
    refuse(file, "JSON text of ", text.size(), " bytes; 4 GiB is the most");
  nodes_.reserve(count_nodes(text));
  Parser(text, file, base, nodes_).document();
}

std::uint32_t Value::end() const noexcept { return document_->nodes_[node_].end; }

std::string_view Value::text() const noexcept { return document_->text_.substr(document_->nodes_[node_].text); }

std::size_t Value::offset() const noexcept { return document_->base_ + document_->nodes_[node_].text; }

Kind Value::kind() const noexcept {
  switch (text().front()) {
    case '{': return Kind::object;
    case '[': return Kind::array;
    case '"': return Kind::string;
    case 't':
    case 'f': return Kind::boolean;
    case 'n': return Kind::null;
    default: return Kind::number;
  }
}

void Value::expect(Kind wanted) const {
  check(is(wanted), "JSON value at byte ", offset(), " is of kind ", static_cast<int>(kind()), ", not ",
        static_cast<int>(wanted));
}

bool Value::boolean() const {
  expect(Kind::boolean);
  return text().front() == 't';
}

std::string Value::string() const {
  expect(Kind::string);
  return decode(raw_string(text()));
}

bool Value::equals(std::string_view wanted) const {
  expect(Kind::string);
  const std::string_view raw = raw_string(text());
  return has_escape(raw) ? decode(raw) == wanted : raw == wanted;
}

Number Value::number() const {
  expect(Kind::number);
  return Parser::parse_number(Parser::number_token(text())).value();
}

std::optional<std::uint64_t> Value::digits() const {
  if (!is(Kind::number)) return std::nullopt;
  const Number value = number();
  const auto* whole = std::get_if<std::uint64_t>(&value);
  return whole ? std::optional(*whole) : std::nullopt;
}

std::size_t Value::size() const {
  std::size_t count = 0;
  if (is(Kind::array)) {
    each([&](Value) { ++count; });
  } else {
    members([&](Value, Value) { ++count; });
  }
  return count;
}

}  // namespace lamella::io::json
