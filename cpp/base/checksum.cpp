#include "base/checksum.h"

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>

namespace lamella {
namespace {

// At any address and on any byte order. Composing the number of bytes says the same, but gcc 12 leaves that eight loads:
// 1.5 GB/s instead of 10.
template <std::unsigned_integral Word>
Word load(const std::byte* from, std::endian order) noexcept {
  Word word;
  std::memcpy(&word, from, sizeof word);
  if (order == std::endian::native) return word;
  Word swapped = 0;
  for (std::size_t i = 0; i < sizeof word; ++i) swapped = swapped << 8 | (word >> 8 * i & 0xff);
  return swapped;
}
std::uint32_t little32(const std::byte* from) noexcept { return load<std::uint32_t>(from, std::endian::little); }
std::uint64_t little64(const std::byte* from) noexcept { return load<std::uint64_t>(from, std::endian::little); }
std::uint32_t big32(const std::byte* from) noexcept { return load<std::uint32_t>(from, std::endian::big); }

/// Hands whole blocks of `bytes` to `consume`, those that lie in `bytes` without a copy, and keeps the rest in `held`.
/// `total` counts the bytes of all calls.
template <std::size_t block_bytes, typename Consume>
void in_blocks(std::array<std::byte, block_bytes>& held, std::uint64_t& total, std::span<const std::byte> bytes,
               Consume consume) {
  if (bytes.empty()) return;  // an empty span's null pointer is none for memcpy
  const std::size_t begun = total % block_bytes;
  total += bytes.size();
  if (begun > 0) {
    const std::size_t taken = std::min(block_bytes - begun, bytes.size());
    std::memcpy(held.data() + begun, bytes.data(), taken);
    if (begun + taken < block_bytes) return;
    consume(held.data());
    bytes = bytes.subspan(taken);
  }
  for (; bytes.size() >= block_bytes; bytes = bytes.subspan(block_bytes)) consume(bytes.data());
  if (!bytes.empty()) std::memcpy(held.data(), bytes.data(), bytes.size());
}

// ---- XXH64 ---------------------------------------------------------------------------------------------------------------

constexpr std::uint64_t prime1 = 0x9e3779b185ebca87, prime2 = 0xc2b2ae3d27d4eb4f, prime3 = 0x165667b19e3779f9,
                        prime4 = 0x85ebca77c2b2ae63, prime5 = 0x27d4eb2f165667c5;

std::uint64_t mixed(std::uint64_t lane, std::uint64_t word) noexcept {
  return std::rotl(lane + word * prime2, 31) * prime1;
}

}  // namespace

Xxh64::Xxh64(std::uint64_t seed) noexcept
    : seed_(seed), lanes_{seed + prime1 + prime2, seed + prime2, seed, seed - prime1} {}

void Xxh64::update(std::span<const std::byte> bytes) noexcept {
  auto lanes = lanes_;  // in registers: `held_` is bytes, which a compiler must take for an alias of lanes_
  in_blocks(held_, total_, bytes, [&](const std::byte* stripe) {
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = mixed(lanes[i], little64(stripe + 8 * i));
  });
  lanes_ = lanes;
}

std::uint64_t Xxh64::digest() const noexcept {
  std::uint64_t hash = seed_ + prime5;
  if (total_ >= held_.size()) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) hash = (hash ^ mixed(0, lane)) * prime1 + prime4;
  }
  hash += total_;
  const std::byte* at = held_.data();
  std::size_t left = total_ % held_.size();
  for (; left >= 8; at += 8, left -= 8) hash = std::rotl(hash ^ mixed(0, little64(at)), 27) * prime1 + prime4;
  for (; left >= 4; at += 4, left -= 4) hash = std::rotl(hash ^ (little32(at) * prime1), 23) * prime2 + prime3;
  for (; left > 0; ++at, --left) hash = std::rotl(hash ^ (std::to_integer<std::uint64_t>(*at) * prime5), 11) * prime1;
  hash = (hash ^ hash >> 33) * prime2;
  hash = (hash ^ hash >> 29) * prime3;
  return hash ^ hash >> 32;
}

std::uint64_t xxh64(std::span<const std::byte> bytes, std::uint64_t seed) noexcept {
  Xxh64 hash(seed);
  hash.update(bytes);
  return hash.digest();
}

// ---- SHA-256 -------------------------------------------------------------------------------------------------------------

void Sha256::block(const std::byte* bytes) noexcept {
  static constexpr std::array<std::uint32_t, 64> constants{
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  std::array<std::uint32_t, 64> words;
  for (std::size_t i = 0; i < 16; ++i) words[i] = big32(bytes + 4 * i);
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t w15 = words[i - 15], w2 = words[i - 2];
    words[i] = words[i - 16] + (std::rotr(w15, 7) ^ std::rotr(w15, 18) ^ w15 >> 3) + words[i - 7] +
               (std::rotr(w2, 17) ^ std::rotr(w2, 19) ^ w2 >> 10);
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t chosen = (e & f) ^ (~e & g), majority = (a & b) ^ (a & c) ^ (b & c);
    const std::uint32_t first =
        h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + chosen + constants[i] + words[i];
    const std::uint32_t second = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + majority;
    h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
  }
  const std::array<std::uint32_t, 8> added{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < added.size(); ++i) state_[i] += added[i];
}

void Sha256::update(std::span<const std::byte> bytes) noexcept {
  in_blocks(held_, total_, bytes, [&](const std::byte* whole) { block(whole); });
}

std::array<std::byte, 32> Sha256::digest() const noexcept {
  Sha256 last = *this;
  std::array<std::byte, 72> end{std::byte{0x80}};  // a one bit, zeros, the length in bits
  const std::size_t zeros = (55 - total_ % 64 + 64) % 64;
  for (int i = 0; i < 8; ++i)
    end[zeros + 1 + static_cast<std::size_t>(i)] = static_cast<std::byte>(total_ * 8 >> (56 - 8 * i));
  last.update(std::span(end).first(zeros + 9));
  std::array<std::byte, 32> out;
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::byte>(last.state_[i / 4] >> (24 - 8 * (i % 4)));
  return out;
}

// ---- text ----------------------------------------------------------------------------------------------------------------

std::string hex(std::span<const std::byte> bytes) {
  static constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  out.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) {
    out += digits[std::to_integer<std::size_t>(byte >> 4)];
    out += digits[std::to_integer<std::size_t>(byte & std::byte{15})];
  }
  return out;
}

std::string hex(std::uint64_t number) {
  std::array<std::byte, 8> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(number >> (56 - 8 * i));
  return hex(bytes);
}

}  // namespace lamella
