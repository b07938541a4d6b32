"""Which processes are alive together: all of a class where memory allows, else parts, each with Lamella's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .entries import LAMELLA, Entry


def groups(
    entries: Sequence[Entry], need: Callable[[Entry], float], room: float
) -> tuple[list[list[Entry]], list[Entry]]:
    """Parts of one class whose bytes (`need`) sum to at most `room`, and the peers that do not even fit beside Lamella.

    Every part has all of Lamella's entries first, because it is they that are compared; peers keep their order.
    """
    own = [entry for entry in entries if entry.engine == LAMELLA]
    left = room - sum(need(entry) for entry in own)
    parts: list[list[Entry]] = []
    too_large: list[Entry] = []
    free = 0.0
    for entry in entries:
        if entry.engine == LAMELLA:
            continue
        if need(entry) > left:
            too_large.append(entry)
            continue
        if not parts or need(entry) > free:
            parts.append(list(own))
            free = left
        parts[-1].append(entry)
        free -= need(entry)
    return parts or ([own] if own and left >= 0 else []), too_large
