"""A vocabulary for models with random weights: engines refuse files without one, though ids are all they are given."""

from __future__ import annotations

import itertools


def byte_letters() -> list[str]:
    """The 256 letters by which GPT-2's byte pair encoding writes bytes: printable ones stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = itertools.count(256)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def byte_pairs(size: int) -> tuple[list[str], list[str]]:
    """A byte pair encoding with `size` tokens (at least 256): the tokens, and the merges "LEFT RIGHT" that make them.

    Beyond the bytes, token i is token (i - 256) / 256 followed by byte (i - 256) % 256: each is made by one merge of
    earlier ones, and no two are alike.
    """
    tokens, merges = byte_letters(), []
    for i in range(size - 256):
        left, right = tokens[i // 256], tokens[i % 256]
        tokens.append(left + right)
        merges.append(f"{left} {right}")
    return tokens, merges
