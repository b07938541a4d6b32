#include "base/checksum.h"

#include <gtest/gtest.h>

#include <vector>

namespace lamella {
namespace {

std::vector<std::byte> data(std::size_t size) {
  std::vector<std::byte> out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i * 131 + (i >> 8) * 17 + 7);
  return out;
}

// From PyPI's xxhash 3, of bytes (i * 131 + (i >> 8) * 17 + 7) % 256, with seed 0 and with 0x9e3779b97f4a7c15.
struct XxhVector {
  std::size_t size;
  std::uint64_t plain, seeded;
};
constexpr XxhVector xxh_vectors[] = {
    {0, 0xef46db3751d8e999, 0xc4349fc93c010000},    {1, 0xa96c7f0ce858bbb7, 0x585882422a6165e7},
    {3, 0xbed43740ee6332bb, 0x45fa1406538fa168},    {4, 0xfa212ae44b3bb23d, 0xa65107f22943365a},
    {7, 0x2744460dd675d2c0, 0xc9b637e2c4599de2},    {8, 0x994b676b71ce94dd, 0xce592d5f53e192ec},
    {12, 0xb92f588ce720786e, 0xbc37a5ae43141b1a},   {15, 0x09e6451ed2ff8b1d, 0x47a857d1f90c35e1},
    {16, 0x94ad0095e72b24d5, 0x3f8fea7c86a04013},   {31, 0x6711d55e306b5d8f, 0x24c4e99ab0404b5e},
    {32, 0x07f7b8e3bc5d6e25, 0x046e99bbda1a814b},   {33, 0x09f85eeb4e1cbe9f, 0xd7fe2bfee6e4cded},
    {39, 0xb13c137a0fb701c3, 0x5fed1b08fdcb15f5},   {40, 0xd25150177ba46490, 0x09eae257f2239c63},
    {63, 0xb7c9968c066cb6a5, 0xbd457f9ea47180c8},   {64, 0x50d4159a0411632e, 0xa768f350a8e4fcf6},
    {65, 0xd277176bff863efc, 0xfe99ab21e40d4b0c},   {100, 0x9ddada11d3dc2d8f, 0x35546bd9a4779ae4},
    {1000, 0x5ccf2f8763027d49, 0xc9f60270cd90e6d5}, {65537, 0xcb8d1cbf756ce26f, 0xfb73ddde0b0d330b},
};

// From Python's hashlib, of the same bytes.
struct ShaVector {
  std::size_t size;
  std::string_view digest;
};
constexpr ShaVector sha_vectors[] = {
    {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {1, "ca358758f6d27e6cf45272937977a748fd88391db679ceda7dc7bf1f005ee879"},
    {3, "17aef23a39d753e713c203c152454d29fa8e39a98e83a69b39a5094dba9ae951"},
    {54, "df0dfd870292b2cb91ca3d2df4aeca24947f6ecc609d3bf6ed64dea8a4b5be69"},
    {55, "16ed9c4697ca11d5f6fb25ea7900252dd4cb97215d7f6d0b2bb3e2a86ac0ec72"},
    {56, "939ada93b2fe1e9c596d767bb408567c83e253667f0b25e5be8e16f35f2cbac9"},
    {57, "ab84281f3b181e6cfc7cf870c7f3e7912be6fd1ac49c7dd6b21f6c25bb9a5eaa"},
    {63, "6073f83b09ae82016cdbe24c18996c48f0eaa08ca675d0f6b90b807fc29e0149"},
    {64, "b337ba9b0c69c391364e985fdcb23a889887e59800832c92fbfa22b8a3c40304"},
    {65, "9d6a3fb113b586b4ab97bc11c993a27bd9b7bbcb756e0646083dc47a679600e6"},
    {119, "9773fbac8194c3d789af101b49b6a26073076895ef6e0f658432849dd477a43f"},
    {120, "070a538f085dd94821d4dc197c5c8b791051891d4fa2a1bf25d3c275236676f7"},
    {127, "5072b7a9a4cda7f6d80f1eff09b8b9653201dba22319daf32c6c05339d57f483"},
    {128, "485a94e53eba9717a5d8b7b4489cad92a752f1c5722e7dfd29dd164b7c438d11"},
    {1000, "597742157bc546b5cb23cf0c4a0841d08da371d29c00bfb2829563ab62042057"},
    {65537, "2b895c22beff4b2bb6a9416b37feb9aee849555d274e7c965596438941a5e497"},
};

TEST(Checksum, Xxh64GivesThePublishedAlgorithmsValues) {
  for (const XxhVector& vector : xxh_vectors) {
    EXPECT_EQ(hex(xxh64(data(vector.size))), hex(vector.plain)) << vector.size << " bytes";
    EXPECT_EQ(hex(xxh64(data(vector.size), 0x9e3779b97f4a7c15)), hex(vector.seeded)) << vector.size << " bytes";
  }
}

TEST(Checksum, Sha256GivesThePublishedAlgorithmsValues) {
  for (const ShaVector& vector : sha_vectors) {
    Sha256 hash;
    hash.update(data(vector.size));
    EXPECT_EQ(hex(hash.digest()), vector.digest) << vector.size << " bytes";
  }
  Sha256 abc;  // FIPS 180-4's own example
  abc.update("abc");
  EXPECT_EQ(hex(abc.digest()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Checksum, NeitherPiecesNorAlignmentMatter) {
  const std::vector<std::byte> bytes = data(400);
  for (std::size_t size : {0U, 1U, 31U, 33U, 64U, 300U}) {
    const auto whole = std::span(bytes).subspan(3, size);
    Sha256 sha_of_whole;
    sha_of_whole.update(whole);
    for (std::size_t piece = 1; piece <= 70; ++piece) {
      Xxh64 hash;
      Sha256 sha;
      for (std::size_t at = 0; at < size; at += piece) {
        const auto part = whole.subspan(at, std::min(piece, size - at));
        hash.update(part), hash.update({}), sha.update(part);
        static_cast<void>(hash.digest());  // asking in between changes nothing
        static_cast<void>(sha.digest());
      }
      EXPECT_EQ(hash.digest(), xxh64(whole)) << size << " in pieces of " << piece;
      EXPECT_EQ(sha.digest(), sha_of_whole.digest()) << size << " in pieces of " << piece;
    }
    // At every alignment: the same bytes, moved.
    for (std::size_t shift = 0; shift < 16; ++shift) {
      std::vector<std::byte> moved(shift + size);
      std::copy(whole.begin(), whole.end(), moved.begin() + static_cast<std::ptrdiff_t>(shift));
      EXPECT_EQ(xxh64(std::span(moved).subspan(shift)), xxh64(whole));
    }
  }
}

TEST(Checksum, Hex) {
  EXPECT_EQ(hex(std::uint64_t{0}), "0000000000000000");
  EXPECT_EQ(hex(std::uint64_t{0x0123456789abcdef}), "0123456789abcdef");
  EXPECT_EQ(hex(std::span<const std::byte>()), "");
}

}  // namespace
}  // namespace lamella
