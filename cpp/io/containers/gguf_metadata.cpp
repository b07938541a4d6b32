#include "io/containers/gguf_metadata.h"

#include <algorithm>

#include "io/containers/limits.h"
#include "io/containers/utf8.h"

namespace lamella::io {
namespace {

constexpr std::uint64_t least_pair_bytes = 8 + 1 + 4 + 1;  // key "x", type, a u8
// A map node takes some 130 bytes and its pair at least 14, which is above P3's factor of 8; so few keep below its 1
// MiB.
constexpr std::uint64_t max_pairs = 1u << 16;

enum class ValueType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

std::uint8_t checked_boolean(std::byte byte, std::uint64_t at, const GgufCursor& in) {
  const auto value = std::to_integer<std::uint8_t>(byte);
  if (value > 1) refuse(in.file(), "metadata boolean at byte ", at, " is ", int{value}, ", neither 0 nor 1");
  return value;
}

MetadataNumbers read_numbers(GgufCursor& in, NumberType type, std::uint64_t width) {
  const std::uint64_t count = in.count(width, "a metadata array's length"), at = in.position();
  const auto bytes = in.bytes(count * width, "a metadata array");
  if (type == NumberType::boolean)
    for (std::size_t i = 0; i < bytes.size(); ++i) checked_boolean(bytes[i], at + i, in);
  return {type, {bytes.begin(), bytes.end()}};
}

MetadataValue read_value(GgufCursor& in, ValueType type, int depth);

MetadataValue read_array(GgufCursor& in, int depth) {
  const std::uint64_t at = in.position();
  if (depth > limits::nesting) refuse(in.file(), "metadata arrays nest deeper than ", limits::nesting, " at byte ", at);
  const auto type = static_cast<ValueType>(in.number<std::uint32_t>("a metadata array's type"));
  switch (type) {
    case ValueType::u8: return {read_numbers(in, NumberType::u8, 1)};
    case ValueType::i8: return {read_numbers(in, NumberType::i8, 1)};
    case ValueType::u16: return {read_numbers(in, NumberType::u16, 2)};
    case ValueType::i16: return {read_numbers(in, NumberType::i16, 2)};
    case ValueType::u32: return {read_numbers(in, NumberType::u32, 4)};
    case ValueType::i32: return {read_numbers(in, NumberType::i32, 4)};
    case ValueType::f32: return {read_numbers(in, NumberType::f32, 4)};
    case ValueType::boolean: return {read_numbers(in, NumberType::boolean, 1)};
    case ValueType::u64: return {read_numbers(in, NumberType::u64, 8)};
    case ValueType::i64: return {read_numbers(in, NumberType::i64, 8)};
    case ValueType::f64: return {read_numbers(in, NumberType::f64, 8)};
    case ValueType::string:
    case ValueType::array: {
      // A string is at least its length, an array its type and length.
      const std::uint64_t count = in.count(type == ValueType::string ? 8 : 12, "a metadata array's length");
      MetadataArray array;
      array.reserve(count);
      for (std::uint64_t i = 0; i < count; ++i) array.push_back(read_value(in, type, depth));
      return {std::move(array)};
    }
  }
  refuse(in.file(), "metadata array at byte ", at, " has elements of unknown type ", static_cast<std::uint32_t>(type));
}

MetadataValue read_value(GgufCursor& in, ValueType type, int depth) {
  constexpr std::string_view what = "a metadata value";
  const std::uint64_t at = in.position();
  switch (type) {
    case ValueType::u8: return {std::uint64_t{in.number<std::uint8_t>(what)}};
    case ValueType::u16: return {std::uint64_t{in.number<std::uint16_t>(what)}};
    case ValueType::u32: return {std::uint64_t{in.number<std::uint32_t>(what)}};
    case ValueType::u64: return {in.number<std::uint64_t>(what)};
    case ValueType::i8: return {std::int64_t{in.number<std::int8_t>(what)}};
    case ValueType::i16: return {std::int64_t{in.number<std::int16_t>(what)}};
    case ValueType::i32: return {std::int64_t{in.number<std::int32_t>(what)}};
    case ValueType::i64: return {in.number<std::int64_t>(what)};
    case ValueType::f32: return {double{in.number<float>(what)}};
    case ValueType::f64: return {in.number<double>(what)};
    case ValueType::boolean: return {checked_boolean(in.number<std::byte>(what), at, in) != 0};
    case ValueType::string: return {std::string(in.string(what))};
    case ValueType::array: return read_array(in, depth + 1);
  }
  refuse(in.file(), "metadata value at byte ", at, " is of unknown type ", static_cast<std::uint32_t>(type));
}

}  // namespace

std::map<std::string, MetadataValue, std::less<>> read_gguf_metadata(GgufCursor& in) {
  const std::uint64_t pairs = in.count(least_pair_bytes, "the metadata count");
  if (pairs > max_pairs) refuse(in.file(), pairs, " metadata entries; at most ", max_pairs, " are allowed");
  std::map<std::string, MetadataValue, std::less<>> metadata;
  for (std::uint64_t i = 0; i < pairs; ++i) {
    const std::uint64_t at = in.position();
    const std::string_view key = in.string("a metadata key");
    if (key.empty() || key.size() > limits::name_bytes || key.find('\0') != key.npos || !is_utf8(key))
      refuse(in.file(), "metadata key ", brief(key), " at byte ", at, " is not 1 to ", limits::name_bytes,
             " bytes of UTF-8 without NUL");
    const auto type = static_cast<ValueType>(in.number<std::uint32_t>("a metadata type"));
    const bool added = metadata.emplace(key, read_value(in, type, 0)).second;
    if (!added) refuse(in.file(), "metadata key ", shown(key), " at byte ", at, " occurs twice");
  }
  return metadata;
}

}  // namespace lamella::io
