// Bounded little-endian reading of the head of a GGUF file.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <span>
#include <string_view>

#include "io/refuse.h"

namespace lamella::io {

/// Thrown by GgufCursor at the end of the bytes at hand; parse_gguf catches it and answers NeedMore.
struct HeadEnds : std::exception {
  explicit HeadEnds(std::uint64_t needed) noexcept : bytes(needed) {}
  [[nodiscard]] const char* what() const noexcept override { return "the head of a GGUF file ends early"; }

  std::uint64_t bytes;
};

/// Walks over the bytes at hand. What lies beyond the file or beyond P3's 100,000,000 bytes is refused; what lies
/// beyond the bytes at hand, but in the file, ends in HeadEnds.
class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> head, std::uint64_t file_size, std::string_view file)
      : head_(head), file_size_(file_size), file_(file) {}

  [[nodiscard]] std::uint64_t position() const noexcept { return at_; }
  [[nodiscard]] std::string_view file() const noexcept { return file_; }

  /// The next `count` bytes. `what` says in errors what they were to be.
  std::span<const std::byte> bytes(std::uint64_t count, std::string_view what);

  /// The next number of that type, which is one of the fixed-width arithmetic types. x86-64 and aarch64 are
  /// little-endian.
  template <typename T>
  T number(std::string_view what) {
    static_assert(std::endian::native == std::endian::little, "GGUF is read without swapping bytes");
    T value;
    std::memcpy(&value, bytes(sizeof value, what).data(), sizeof value);
    return value;
  }

  /// A length and as many bytes of text.
  std::string_view string(std::string_view what);

  /// A count of items, each at least `least` bytes long: refused when the file cannot hold so many, and only given
  /// when the bytes at hand could, so that memory can be reserved for it.
  std::uint64_t count(std::uint64_t least, std::string_view what);

 private:
  void require(std::uint64_t count, std::string_view what) const;

  std::span<const std::byte> head_;
  std::uint64_t file_size_;
  std::string_view file_;
  std::uint64_t at_ = 0;
};

}  // namespace lamella::io
