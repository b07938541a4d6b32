// Dot products with the instructions of AVX-512 VNNI (unsigned weight codes, signed activation codes, exact in int32) and
// AVX-512 BF16 (two products a lane, summed in fp32).
#pragma once

#include "cpu/kernels/vector/register_tiles.h"
#include "cpu/kernels/vector/simd.h"

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// Words that four activation codes take beside weights of so many bits.
template <int Bits>
constexpr int quad_words = 1;
/// Nothing is summed in 16 bits: one instruction multiplies bytes and sums them in 32.
constexpr bool sums_in_halves = false;
constexpr bool multiplies_bf16_pairs = true;
/// Making bf16 of codes costs two to seven operations a vector: eight tokens share them.
constexpr RegisterTiles code_pairs_tiles = {{4, 2}, {2, 8}};
constexpr RegisterTiles grouped_code_pairs_tiles = {{4, 4}, {2, 8}};

LAMELLA_INLINE void pack_quad(const std::int8_t* codes, std::int32_t* words) { __builtin_memcpy(words, codes, 4); }

/// sum + the products of each lane's four bytes with the four activation codes, whose words stand `Stride` apart.
template <int Stride>
LAMELLA_INLINE I32 add_dots(I32 sum, U32 bytes, const std::int32_t* quad) {
  return (I32)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes, (__m512i)(quad[0] - I32{}));
}

/// sum + the products of each lane's two bf16 with the two of `pair`.
LAMELLA_INLINE F32 add_pair_of_bf16(F32 sum, U32 weights, std::uint32_t pair) {
  return (F32)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)(pair - U32{}));
}

/// `first` and then `second` as bf16, rounded to nearest, ties to even: the words of 2 * lanes numbers.
LAMELLA_INLINE U32 bf16_pairs(F32 first, F32 second) { return (U32)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first); }

/// Two of a word's codes, less their bias where they have one, as bf16: of eight bits inputs 2 * pair and 2 * pair + 1; of
/// four bits inputs 0 and 2, 4 and 6, 1 and 3, 5 and 7, which stand 16 bits apart.
template <bool Biased, int Bits>
LAMELLA_INLINE U32 bf16_pair_of_codes(Constant<Bits>, U32 word, int pair) {
  if constexpr (Bits == 8) {
    // A code in the lowest bits of 2^23 is the float 2^23 + code; the difference is exact and ends in 16 zero bits.
    constexpr float origin = Biased ? 8388736.0F : 8388608.0F;
    const F32 low = (F32)((word >> 16 * pair & 0xffu) | 0x4b000000u) - origin;
    const F32 high = (F32)((word >> (16 * pair + 8) & 0xffu) | 0x4b000000u) - origin;
    using Places = std::uint16_t __attribute__((vector_size(64)));
    constexpr Places upper_halves = {1,  33, 3,  35, 5,  37, 7,  39, 9,  41, 11, 43, 13, 45, 15, 47,
                                     17, 49, 19, 51, 21, 53, 23, 55, 25, 57, 27, 59, 29, 61, 31, 63};
    return (U32)_mm512_permutex2var_epi16((__m512i)low, (__m512i)upper_halves, (__m512i)high);
  } else {
    // -8 to 7 or 0 to 15 as bf16, twice: the lookup takes five bits, of which the fifth is another code's.
    using Table = std::uint16_t __attribute__((vector_size(64)));
    constexpr Table biased = {0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000,
                              0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040,
                              0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
    constexpr Table plain = {0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120,
                             0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
                             0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
    return (U32)_mm512_permutexvar_epi16((__m512i)(word >> 4 * pair), (__m512i)(Biased ? biased : plain));
  }
}

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
