// A strict, bounded JSON reader for the headers of containers. It is not for config.json: Python reads that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lamella::io::json {

enum class Kind : std::uint8_t { null, boolean, number, string, array, object };
using Number = std::variant<std::int64_t, std::uint64_t, double>;

class Document;

/// A view of one value of a Document. Asking for what the value is not is a broken invariant: look at kind() first.
class Value {
 public:
  [[nodiscard]] Kind kind() const noexcept;
  [[nodiscard]] bool is(Kind wanted) const noexcept { return kind() == wanted; }
  /// Where the value begins, in bytes from the start of the file.
  [[nodiscard]] std::size_t offset() const noexcept;

  [[nodiscard]] bool boolean() const;
  [[nodiscard]] std::string string() const;             // escapes decoded
  [[nodiscard]] bool equals(std::string_view text) const;  // for strings, without a copy unless there are escapes
  [[nodiscard]] Number number() const;  // uint64 unless negative (int64) or written with '.', 'e' or as -0 (double)
  /// The number when it is written as digits only; nothing for "-1", "4.0", "1e3" and for what is no number.
  [[nodiscard]] std::optional<std::uint64_t> digits() const;

  /// Elements of an array or members of an object, counted by walking them.
  [[nodiscard]] std::size_t size() const;
  /// visit(Value) for each element of an array, in order.
  template <typename Visit>
  void each(Visit visit) const {
    expect(Kind::array);
    for (std::uint32_t child = node_ + 1; child < end(); child = Value(*document_, child).end())
      visit(Value(*document_, child));
  }
  /// visit(Value key, Value value) for each member of an object, in order.
  template <typename Visit>
  void members(Visit visit) const {
    expect(Kind::object);
    for (std::uint32_t key = node_ + 1; key < end(); key = Value(*document_, key + 1).end())
      visit(Value(*document_, key), Value(*document_, key + 1));
  }

 private:
  friend class Document;
  Value(const Document& document, std::uint32_t node) noexcept : document_(&document), node_(node) {}
  [[nodiscard]] std::uint32_t end() const noexcept;
  [[nodiscard]] std::string_view text() const noexcept;
  void expect(Kind wanted) const;

  const Document* document_;
  std::uint32_t node_;
};

/// One place of the document's flat list: a value begins at byte `text`, and its last descendant is before node `end`.
/// A value's kind, a string's characters and a number's digits are read from the text when asked for, so a node is 8
/// bytes and a document of n bytes, which has at most (n + 1) / 2 values, takes at most 4 n (and n more while keys are
/// compared).
struct Node {
  std::uint32_t text;
  std::uint32_t end;
};

/// Parses `text`, which must outlive the document. Strict RFC 8259 in valid UTF-8, nothing after the value but white
/// space; anything else throws invalid_checkpoint with `file` and the byte offset (`base` is where the text begins in
/// the file). Stricter than the RFC and than other readers, with the tag that the message carries:
///   J1  nesting deeper than 64
///   J2  a key that occurs twice in its object
///   J3  an escaped surrogate without its other half
///   J4  an integer outside int64 and uint64, or a number outside the range of double
class Document {
 public:
  Document(std::string_view text, std::string_view file, std::size_t base = 0);
  [[nodiscard]] Value root() const noexcept { return {*this, 0}; }

 private:
  friend class Value;
  std::string_view text_;
  std::size_t base_;
  std::vector<Node> nodes_;
};

}  // namespace lamella::io::json
