"""What becomes of a model's weights on their way from its files: what info and pack show of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lamella import _core
from lamella.progress import bytes_text


def conversions(choices: list[_core.FormatChoice]) -> list[dict[str, Any]]:
    """The most bytes first: from what to what, how, how many."""
    counts, sizes = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for choice in choices:
        kind = (choice.stored, str(choice.format), choice.conversion)
        counts[kind] += 1
        sizes[kind] += choice.bytes
    return [
        {"stored": stored, "format": to, "conversion": how, "weights": counts[stored, to, how], "bytes": size}
        for (stored, to, how), size in sizes.most_common()
    ]


def conversion_lines(kinds: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The same as lines of a name and a text."""
    return [
        (
            f"{kind['stored']} {kind['conversion']}",
            f"as {kind['format']}: {kind['weights']} weights, {bytes_text(kind['bytes'])} in memory",
        )
        for kind in kinds
    ]
