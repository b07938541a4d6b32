"""Prints the words of cpp/io/gguf_codebooks.cpp, taken from the Python package gguf: one bit for each possible entry.

A codebook of the IQ types is a set of vectors in rising order, each component one of a few values ("digits"), the
first component the least significant. So a set of bits says all: bit n is set if the vector whose digits make n is in.
Run it when the package gains a codebook; tests/python/test_expand.py compares the values.
"""

from __future__ import annotations

import gguf.quants as quants
import numpy as np

WORDS_A_LINE = 5


def members(kind: str) -> tuple[list[int], int]:
    """The numbers of a codebook's entries, in its order, and how many numbers there could be."""
    book = getattr(quants, kind)
    book.init_grid()
    digits = np.searchsorted(np.array(book.grid_map), book.grid.reshape(book.grid_shape))
    base, length = len(book.grid_map), book.grid_shape[1]
    return [int(number) for number in digits @ base ** np.arange(length)], base**length


def main() -> None:
    for kind in ("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"):
        numbers, possible = members(kind)
        if numbers != sorted(set(numbers)):
            raise SystemExit(f"{kind}: its entries are not in rising order; a set of bits does not hold them")
        bits = sum(1 << number for number in numbers)
        words = [f"0x{bits >> 64 * i & (1 << 64) - 1:016x}" for i in range(-(-possible // 64))]
        print(f"// {kind}: {len(numbers)} of {possible}")
        for i in range(0, len(words), WORDS_A_LINE):
            print("    " + ", ".join(words[i : i + WORDS_A_LINE]) + ",")


if __name__ == "__main__":
    main()
