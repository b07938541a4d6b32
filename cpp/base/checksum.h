// Checksums of a packed store: XXH64 finds damage at the speed of memory, SHA-256 names a model. Both are the public
// algorithms, and give the same on every machine, at any alignment and however the bytes are cut into updates.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lamella {

/// XXH64 of bytes that come in pieces. Against accidents only: it is no defence against whoever can compute it too.
class Xxh64 {
 public:
  explicit Xxh64(std::uint64_t seed = 0) noexcept;
  void update(std::span<const std::byte> bytes) noexcept;
  /// Of everything so far; updates may follow.
  [[nodiscard]] std::uint64_t digest() const noexcept;

 private:
  std::uint64_t seed_;
  std::array<std::uint64_t, 4> lanes_;
  std::array<std::byte, 32> held_{};  // the last total_ % 32 bytes, which fill no stripe yet
  std::uint64_t total_ = 0;
};

[[nodiscard]] std::uint64_t xxh64(std::span<const std::byte> bytes, std::uint64_t seed = 0) noexcept;

/// SHA-256 (FIPS 180-4) of bytes that come in pieces.
class Sha256 {
 public:
  void update(std::span<const std::byte> bytes) noexcept;
  void update(std::string_view text) noexcept { update(std::as_bytes(std::span(text))); }
  /// Of everything so far; updates may follow.
  [[nodiscard]] std::array<std::byte, 32> digest() const noexcept;

 private:
  void block(const std::byte* bytes) noexcept;

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> held_{};  // the last total_ % 64 bytes, which fill no block yet
  std::uint64_t total_ = 0;
};

/// Two lower-case hexadecimal digits a byte.
[[nodiscard]] std::string hex(std::span<const std::byte> bytes);

/// Sixteen lower-case hexadecimal digits, the highest first.
[[nodiscard]] std::string hex(std::uint64_t number);

}  // namespace lamella
